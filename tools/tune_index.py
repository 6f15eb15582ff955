from retrieval.commands.tune_index import main

if __name__ == '__main__':
    main()
