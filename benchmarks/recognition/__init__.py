"""CNN, RNN and LSTM on the same spoken words, tuned with the same effort: `python -m benchmarks recognition`.

plan.py says which trainings there are, measure.py makes one and measures it, pages.py and plots.py write
docs/recognition.md and docs/recognition.zh-CN.md from what was measured.
"""
