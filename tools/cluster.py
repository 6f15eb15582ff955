from retrieval.commands.cluster import main

if __name__ == '__main__':
    main()
