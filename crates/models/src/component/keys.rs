//! Keys of configurations that nothing reads.

use serde_json::Value;

use super::Component;

/// Keys of transformers' configurations that say nothing of the computation: training, generation,
/// bookkeeping.
const BOOKKEEPING: [&str; 37] = [
    "architectures",
    "attention_dropout",
    "attn_implementation",
    "auto_map",
    "bos_token_id",
    "chunk_size_feed_forward",
    "cls_token_id",
    "dtype",
    "embedding_dropout",
    "eos_token_id",
    "flash_attention",
    "id2label",
    "init_cutoff_factor",
    "init_device",
    "init_fn",
    "init_std",
    "initializer_range",
    "is_decoder",
    "is_encoder_decoder",
    "label2id",
    "mask_token_id",
    "max_window_layers",
    "model_type",
    "output_attentions",
    "output_dropout",
    "output_hidden_states",
    "output_router_logits",
    "pad_token_id",
    "precision",
    "pretraining_tp",
    "residual_dropout",
    "return_dict",
    "router_aux_loss_coef",
    "torch_dtype",
    "transformers_version",
    "unk_token_id",
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
