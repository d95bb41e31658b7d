"""The study of docs/results.md: does guided pooling help?"""
