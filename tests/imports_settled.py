"""Freezing of the garbage collector: what is imported by now is looked through no more. Import this last.

torch and diffusers bring a million objects that live as long as the process. A full collection looks at each, half a
second long, and the studio asks for one wherever it lets go of a model.
"""

import gc

gc.collect()
gc.freeze()
