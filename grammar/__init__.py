"""The grammar of the query language, `hookql.lark`, shipped inside the wheel as `hookql.grammar`."""
