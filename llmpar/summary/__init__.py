from llmpar import blas

blas.load("numpy")
