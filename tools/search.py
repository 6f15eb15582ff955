from retrieval.commands.search import main

if __name__ == '__main__':
    main()
