from retrieval.commands.dump_prototype import main

if __name__ == '__main__':
    main()
