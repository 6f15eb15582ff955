from retrieval.commands.build_index import main

if __name__ == '__main__':
    main()
