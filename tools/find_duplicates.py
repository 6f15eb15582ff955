from retrieval.commands.find_duplicates import main

if __name__ == '__main__':
    main()
