//! Keys of configurations that nothing reads.

use serde_json::Value;

use super::Component;

/// Keys of transformers' configurations that say nothing of the computation: training, generation,
/// bookkeeping.
const BOOKKEEPING: [&str; 76] = [
    "add_cross_attention",
    "architectures",
    "attention_dropout",
    "attn_implementation",
    "auto_map",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "chunk_size_feed_forward",
    "cls_token_id",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "embedding_dropout",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "flash_attention",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "id2label",
    "init_cutoff_factor",
    "init_device",
    "init_fn",
    "init_std",
    "initializer_range",
    "is_decoder",
    "is_encoder_decoder",
    "label2id",
    "length_penalty",
    "mask_token_id",
    "max_length",
    "max_window_layers",
    "min_length",
    "model_type",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_dropout",
    "output_hidden_states",
    "output_router_logits",
    "output_scores",
    "pad_token_id",
    "precision",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "pruned_heads",
    "remove_invalid_values",
    "repetition_penalty",
    "residual_dropout",
    "return_dict",
    "return_dict_in_generate",
    "router_aux_loss_coef",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "typical_p",
    "unk_token_id",
    "use_bfloat16",
    "use_cache",
];

impl Component {
    /// Keys of a configuration that neither its reader nor the keeping of books knows: the reference
    /// may compute something by them that brisk does not.
    pub fn unknown_keys<'a>(&self, config: &'a Value) -> Vec<&'a str> {
        let known = |key: &str| {
            key.starts_with('_') || self.keys.contains(&key) || BOOKKEEPING.contains(&key)
        };
        let keys = config.as_object().into_iter().flat_map(|file| file.keys());
        keys.map(String::as_str).filter(|key| !known(key)).collect()
    }
}
