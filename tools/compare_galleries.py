from retrieval.commands.compare_galleries import main

if __name__ == '__main__':
    main()
