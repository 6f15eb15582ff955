"""What Milvus does with collections, aliases and rows, in this process."""


class Memory:
    """In the place of a ``Connection``. Expressions are those of Python that Milvus reads too.

    Attributes:
        calls: the method and the arguments of every call.
        fails: raised by the next call of a method, by its name.
    """

    embedded, uri = True, 'memory'

    def __init__(self):
        self.rows, self.made, self.aliases = {}, {}, {}
        self.calls, self.fails = [], {}

    def call(self, method, *args, again=None, **kwargs):
        self.calls.append((method, args))
        if error := self.fails.pop(method, None):
            raise error
        return getattr(self, method)(*args, **kwargs)

    def has_collection(self, name):
        return name in self.rows or name in self.aliases

    def list_collections(self):
        return list(self.rows)

    def create_collection(self, own, schema=None, properties=None, consistency_level=None):
        fields = [dict(name=one.name, type=one.dtype, params=one.params,
                       is_partition_key=one.is_partition_key) for one in schema.fields]
        self.rows[own] = {}
        self.made[own] = dict(fields=fields, properties=properties, index=None)

    def create_index(self, own, index, sync=None):
        self.made[own]['index'] = index[0].to_dict()

    def describe_collection(self, own):
        return self.made[own]

    def describe_index(self, own, name):
        return self.made[own]['index']

    def load_collection(self, own):
        assert own in self.rows

    def drop_collection(self, own):
        assert own not in self.aliases.values(), 'Milvus drops none that has an alias'
        del self.rows[own]

    def describe_alias(self, name):
        if name not in self.aliases:
            raise ValueError('no alias')
        return dict(collection_name=self.aliases[name])

    def list_aliases(self, own):
        return dict(aliases=[name for name, of in self.aliases.items() if of == own])

    def create_alias(self, own, name):
        if name in self.aliases:
            raise ValueError('the alias is there')
        self.aliases[name] = own

    def alter_alias(self, own, name):
        self.aliases[name] = own

    def drop_alias(self, name):
        del self.aliases[name]

    def upsert(self, own, rows):
        self.rows[own].update({one['id']: one for one in rows})

    insert = upsert

    def delete(self, own, filter):
        for one in self.query(own, filter, ['id']):
            del self.rows[own][one['id']]

    def query(self, own, filter, output_fields, limit=None, consistency_level=None):
        found = [one for one in self.rows[own].values()
                 if not filter or eval(filter, {}, dict(one))]
        if output_fields == ['count(*)']:
            return [{'count(*)': len(found)}]
        return [{name: one[name] for name in output_fields} for one in found[::-1][:limit]]
