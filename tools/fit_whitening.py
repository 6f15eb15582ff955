from retrieval.commands.fit_whitening import main

if __name__ == '__main__':
    main()
