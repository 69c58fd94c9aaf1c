"""GPT-2 from scratch, taught to follow instructions. What a notebook or another program uses is imported from here."""

from types import ModuleType

from gpt.evaluation.chat_client import ChatClient, ChatError
from gpt.evaluation.judge import Verdict, judge, parse_score
from gpt.evaluation.metrics import (
    bleu,
    bootstrap_interval,
    exact_match,
    rouge_l,
    score_floors,
    score_responses,
    token_f1,
)
from gpt.model.generate import (
    Generated,
    Response,
    Sampling,
    generate,
    generate_steps,
    respond,
    sample_next,
    stream_response,
)
from gpt.model.gpt2 import GPT, MLP, Block, CausalSelfAttention, GPTConfig, KVCache
from gpt.studies.agreement import paired_difference
from gpt.text.dataset import (
    IGNORE_INDEX,
    Example,
    InstructionDataset,
    Kind,
    batches_by_length,
    collate,
    encode_entry,
    show_mask,
)
from gpt.text.entries import Entry, EntryError, load_entries, read_entries, split_entries, split_report
from gpt.text.prompts import (
    TEMPLATES,
    Template,
    encode_few_shot_prompt,
    encode_prompt,
    format_few_shot_prompt,
    format_prompt,
)
from gpt.text.tokenizer import Tokenizer, load_tokenizer
from gpt.training.loss import evaluate_loss, supervised_loss
from gpt.training.train import StepReport, TrainConfig, TrainingError, choose_trained, lr_at, make_optimizer, train
from gpt.tuning.adapter import load_adapter, save_adapter
from gpt.tuning.dpo import dpo_loss, encode_pair, preference_scores, reference_log_probs, response_log_probs
from gpt.tuning.lora import add_lora, merge_lora, merged_copy, unmerge_lora, use_adapters
from gpt.tuning.pairs import read_pairs
from gpt.tuning.prompt_tuning import add_prompt, load_prompt, save_prompt, with_prompt
from gpt.tuning.turns import ConversationDataset, encode_turns, exchanges
from gpt.weights.checkpoint import SIZES, load_model, save_model
from gpt.weights.tf_checkpoint import CheckpointError, TensorEntry, read_tf_index, read_tf_tensor

__all__ = sorted(
    name
    for name, value in globals().items()
    if name[0] != "_" and not isinstance(value, ModuleType) and value is not ModuleType
)
