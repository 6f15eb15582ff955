"""An index in a Milvus database, embedded or a server."""
