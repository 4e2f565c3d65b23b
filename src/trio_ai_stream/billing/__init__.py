"""What streams cost: their bills, the ledger, what keys may spend."""
