"""ZeroGPU: a GPU for the length of a call, on the quota of the person who asks; the server itself has none.

the person's event --job--> a forked process with the GPU --events--> the server --> the store
"""
