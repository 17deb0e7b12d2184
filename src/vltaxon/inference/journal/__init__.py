"""Every answer, kept as it comes: a job that dies at any moment loses no more than what was being generated.

An answer is found by all that shapes it, and by nothing else. What the requests of a job share (weights and
adapter, number format, pixel budget, engine and its version) is an identity, a folder; what differs (image,
prompt, decoding, repeat) is the answer's key. So an answer serves whoever asks the same, by whatever
protocol, batch size, number of shards or of devices.
"""
