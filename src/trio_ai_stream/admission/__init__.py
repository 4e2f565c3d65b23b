"""Admission: who may start a request, and who a stream."""
