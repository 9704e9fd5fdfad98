"""The grammar of the query language, `hookql.lark`, shipped in the wheel as `hookql.grammar`."""
