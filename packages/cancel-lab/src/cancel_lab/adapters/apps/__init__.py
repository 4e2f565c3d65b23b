"""The servers of the comparison: programs of their own, written the obvious way.

The obvious way yields inside scopes and uses stock httpx. That is what is measured, so
these modules alone are exempt from the rules of the house against both.
"""
