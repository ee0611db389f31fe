"""Deep Compression (Han, Mao and Dally, arXiv 1510.00149): a trained network pruned, its weights shared and Huffman coded.

    checkpoint ─► sensitivity ─► pruning, retrained in rounds ─► shared weights, fine-tuned ─► one file, coded exactly

`docs/compressed-format.md` describes the file.
"""
