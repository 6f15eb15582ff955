from retrieval.commands.train_on_embeddings import main

if __name__ == '__main__':
    main()
