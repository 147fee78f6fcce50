"""What the two pages say outside of their templates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Language:
    """What a page says outside of its template."""

    template: str
    file: str
    missing: str
    headers: Mapping[str, tuple[str, ...]]
    tried: Mapping[str, str]
    layers: Mapping[str, str]
    goals: tuple[str, ...]
    met: tuple[str, str]
    advice: tuple[str, str, str, str, str]
    clips: str
    together: tuple[str, str]
    looks: tuple[str, str]


ENGLISH = Language(
    template="page.en.md",
    file="recognition.md",
    missing="not measured",
    headers={
        "overview": (
            "",
            "parameters",
            "chosen",
            "official 300",
            "0 dB",
            "never heard",
            "calibration",
            "latency",
            "size",
            "training",
        ),
        "compared": ("", "only the one right : only the other", "p, Holm"),
        "goals": ("goal", "measured", ""),
        "layers": ("the CNN", "parameters", "validation", "validation at 0 dB"),
        "noise": ("", "-5 dB", "0 dB", "5 dB", "10 dB", "15 dB", "20 dB"),
        "unseen": ("", "left out", "without other voices", "with other voices"),
        "tried": ("augmentation", "left out", "words recognised [95 %]", "steps"),
        "grid": ("optimiser", "learning rate", "CNN", "RNN", "LSTM"),
        "data": ("", "validation at 0 dB, by training clips"),
    },
    tried={
        "before": "the recipe before: speeds, pauses, noise from 0 dB",
        "all": "all of it",
        "none": "only speeds and pauses",
        "no warp": "without warped formants",
        "no stretch": "without stretched time",
        "no equaliser": "without the equaliser",
        "no noise": "without noise",
        "no rooms": "without rooms",
        "voices": "all of it, and synthetic voices",
    },
    layers={
        "cnn": "as it is",
        "cnn_shallow": "without the last convolution",
        "cnn_strided": "every second place instead of pooling",
        "cnn_mean": "only the mean over time",
        "cnn_max": "only the maximum over time",
        "cnn_dense": "a hidden dense layer more",
    },
    goals=(
        "official 300, the best of the three: 99.8 %",
        "official 300, RNN: 98.5 %",
        "official 300, LSTM: 98.5 %",
        "white noise at 0 dB, the best: 95 %",
        "speakers never heard, whose figures chose nothing: 95 %",
        "the same with synthetic voices: 95 %",
        "all six speakers, each left out in turn, two of whom chose the augmentation: 95 %",
        "the same with synthetic voices (seed 0; seed 1 has 94.73 %): 95 %",
    ),
    met=("reached", "missed"),
    advice=(
        "- **Known speakers, quiet room** (official 300, best first; no more apart than chance may be): $value.",
        "- **Strangers** (the words of $speakers, each left out of training, best first): $value.",
        "- **Many answers, few cores** (half a second of sound, fastest first): $value.",
        "- **Strong noise** (white noise at 0 dB, best first): $value.",
        "- **Retrained often** (CPU time of one training at this budget, shortest first): $value.",
    ),
    clips="clips",
    together=("together", "with those that chose the augmentation"),
    looks=("(one look)", "(three looks)"),
)

CHINESE = Language(
    template="page.zh.md",
    file="recognition.zh-CN.md",
    missing="未测",
    headers={
        "overview": ("", "参数量", "选定设置", "官方 300 条", "0 dB", "陌生说话人", "校准误差", "延迟", "大小", "训练"),
        "compared": ("", "只有前者对 : 只有后者对", "Holm 校正后的 p"),
        "goals": ("目标", "实测", ""),
        "layers": ("CNN 的结构", "参数量", "验证集", "验证集，0 dB"),
        "noise": ("", "-5 dB", "0 dB", "5 dB", "10 dB", "15 dB", "20 dB"),
        "unseen": ("", "去掉的说话人", "不加其他声音", "加入其他声音"),
        "tried": ("数据增强", "去掉的说话人", "识别正确率 [95 %]", "步数"),
        "grid": ("优化器", "学习率", "CNN", "RNN", "LSTM"),
        "data": ("", "不同训练条数下的验证集准确率（0 dB）"),
    },
    tried={
        "before": "原来的做法：变速、停顿、0 dB 起的噪声",
        "all": "全部使用",
        "none": "只变速和加停顿",
        "no warp": "不移动共振峰",
        "no stretch": "不拉伸时间",
        "no equaliser": "不用随机均衡",
        "no noise": "不加噪声",
        "no rooms": "不加混响",
        "voices": "全部使用，再加合成声音",
    },
    layers={
        "cnn": "原样",
        "cnn_shallow": "去掉最后一层卷积",
        "cnn_strided": "不用池化，隔一个取一个",
        "cnn_mean": "时间上只取平均值",
        "cnn_max": "时间上只取最大值",
        "cnn_dense": "多一个全连接隐藏层",
    },
    goals=(
        "官方 300 条，三者中最好的：99.8 %",
        "官方 300 条，RNN：98.5 %",
        "官方 300 条，LSTM：98.5 %",
        "0 dB 白噪声，最好的：95 %",
        "陌生说话人，没有参与任何选择的合计：95 %",
        "同上，加入合成声音：95 %",
        "六位说话人轮流去掉（其中两位曾用来选择数据增强）：95 %",
        "同上，加入合成声音（种子 0；种子 1 为 94.73 %）：95 %",
    ),
    met=("达到", "未达到"),
    advice=(
        "- **说话人都熟悉、环境安静**（官方 300 条，由好到差，差别不超出偶然）：$value。",
        "- **陌生说话人**（训练时去掉 $speakers 之一，再识别其全部录音，由好到差）：$value。",
        "- **请求多、核心少**（半秒声音，由快到慢）：$value。",
        "- **噪声很强**（0 dB 白噪声，由好到差）：$value。",
        "- **需要经常重新训练**（该预算下一次训练的 CPU 时间，由短到长）：$value。",
    ),
    clips="条",
    together=("合计", "连同用来选择数据增强的两位"),
    looks=("（只看一眼）", "（看三眼）"),
)
