"""Write a tiny random Llama: configuration, byte-level BPE tokenizer and, with --weights, random weights of a fixed
seed."""

from __future__ import annotations

import argparse
import json
import os

HIDDEN, LAYERS, HEADS, CONTEXT = 256, 4, 4, 4000
TEXT = """The mill by the river was old when the road was new. Nobody knows who built the wheel, and nobody asks.
In winter the water stands, in spring it runs, and the farmer takes his wheat there as his father did.
What is it worth to know how fast a machine can answer, if nobody has asked it anything?
"""


def tokenizer(folder: str, vocabulary: int) -> int:
    """A byte-level BPE: any text can be encoded, and one token may be a part of a character. Returns its size."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator(TEXT.splitlines(), trainer)
    # Up to the asked size with words that no text holds, so that the output layer costs what it costs in a model.
    made.add_tokens([AddedToken(f"<w{n}>", normalized=False) for n in range(vocabulary - made.get_vocab_size())])
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    made.save(os.path.join(folder, "tokenizer.json"))
    return made.get_vocab_size()


def write(folder: str, name: str, value: object) -> None:
    with open(os.path.join(folder, name), "w", encoding="utf-8") as stream:
        json.dump(value, stream, indent=1, sort_keys=True)
        stream.write("\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", metavar="DIR")
    parser.add_argument("--weights", action="store_true", help="random weights as well (float32, seed 0)")
    parser.add_argument("--vocabulary", type=int, default=2048, metavar="N")
    given = parser.parse_args()
    os.makedirs(given.folder, exist_ok=True)
    size = tokenizer(given.folder, given.vocabulary)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": 4 * HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "head_dim": HIDDEN // HEADS,
        "vocab_size": size,
        "max_position_embeddings": CONTEXT,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "initializer_range": 0.02,
        "attention_bias": False,
        "mlp_bias": False,
    }
    write(given.folder, "config.json", config)
    write(
        given.folder,
        "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "pad_token": "<unk>",
            "model_max_length": CONTEXT,
            "clean_up_tokenization_spaces": False,
        },
    )
    # Without it transformers would look for one on the hub.
    write(given.folder, "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0})
    if given.weights:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(0)
        LlamaForCausalLM(LlamaConfig(**config)).save_pretrained(given.folder)
        write(given.folder, "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0})


if __name__ == "__main__":
    main()
