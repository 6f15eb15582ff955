from retrieval.commands.gallery import main

if __name__ == '__main__':
    main()
