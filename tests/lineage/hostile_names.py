"""Texts that try to act in Markdown, HTML or YAML."""

from __future__ import annotations

HOSTILE = {
    "html": "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "a table's end": "x | y |\n\n# heading\n\n---\n",
    "a code block": "```\n</code>\n~~~\n# x",
    "backticks": "`a``b```c `` ` [x](javascript:alert(1))",
    "an image": "![x](http://example.invalid/x.png) <http://example.invalid>",
    "metadata": "x\n---\nlicense: mit\nbase_model: evil/model\n---\n",
    "yaml": "!!python/object/apply:os.system [id]\n- &a *a {x: 1} # c",
    "a template": "{{ 7 * 7 }}{% raw %}{# c #}",
    "escapes": "\x1b[31m\x9b31m\u202ereversed\u2028line\x00\x7f\u200b",
    "backslashes": "\\` \\| \\\n a\\",
    "no end": "x" * 5000 + "`|",
    "blank": "   \n\t ",
}
