"""Runs -> Plan: identity, stage tree, control audit, epochs, cost. Plain Python; imports no torch."""
