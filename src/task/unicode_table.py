#!/usr/bin/env python3
"""Writes src/task/unicode_table.h: runs of code points that are letters or numbers.

    python3 src/task/unicode_table.py >src/task/unicode_table.h

Source: the Unicode character database as Python's unicodedata has it (general categories L* and N*).  Another
version of Python has another version of Unicode; the splitting rule only depends on it for new scripts.
White space is not in the table: the 25 code points with the property White_Space are listed in unicode.c.
"""
import sys
import unicodedata


def runs(letter):
    start = None
    for c in range(sys.maxunicode + 2):
        inside = c <= sys.maxunicode and unicodedata.category(chr(c))[0] == letter
        if inside and start is None:
            start = c
        elif not inside and start is not None:
            yield start, c - start
            start = None


def table(name, letter):
    rows = ["{0x%x, %d}," % r for r in runs(letter)]
    print("static const unicode_run %s[] = {" % name)
    line = "   "
    for r in rows:
        if len(line) + len(r) + 1 > 108:
            print(line)
            line = "   "
        line += " " + r
    print(line)
    print("};")


print("/* Written by src/task/unicode_table.py from Unicode %s; do not edit.  {first code point, how many}. */"
      % unicodedata.unidata_version)
print("/* clang-format off */")
print('#define UNICODE_VERSION "%s"' % unicodedata.unidata_version)
table("letter_run", "L")
table("number_run", "N")
print("/* clang-format on */")
