"""Where pairs come from: folders, manifests, the built-in photographs -> numbered rows -> pairs of image tensors.

In: names of files. Out: ``LoadedPair`` or ``FailedPair``, decoded ahead of the computation, with what is odd about them
(``conventions``), and the ``split`` of pairs that are for fitting only.
"""
