from retrieval.commands.export_glyphs import main

if __name__ == '__main__':
    main()
