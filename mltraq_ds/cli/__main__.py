"""``python -m mltraq_ds.cli`` is ``mltraq-ds`` where scripts are not on the path."""

from mltraq_ds.cli import main

if __name__ == "__main__":
    main()
