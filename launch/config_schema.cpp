// Every key of a configuration: one line each. To add one, add the member to the struct in
// launch/config.h (its initialiser is the default) and a line here.
#include "launch/config_schema.h"

namespace caravan {
namespace {

Keys<RopeScaling> rope_scaling_keys();

// Chooses the defaults of the keys behind it.
Key<ModelConfig> family_key() {
  Key<ModelConfig> result = key("family", &ModelConfig::family,
                                choice<ModelFamily>({{"llama", ModelFamily::llama},
                                                     {"llama4_text", ModelFamily::llama4_text}}),
                                "architecture");
  result.read = [read = result.read](ModelConfig& model, const YamlNode& node,
                                     const ReadPlace& place) {
    read(model, node, place);
    model = default_config(model.family);
  };
  return result;
}

Key<ModelConfig> of_family(ModelFamily family, Key<ModelConfig> key) {
  return only_where<ModelConfig>(
      [family](const ModelConfig& model) { return model.family == family; }, default_config(family),
      absl::StrFormat("only family %s has it; remove the key", name(family)), std::move(key));
}

Key<ModelConfig> of_experts(Key<ModelConfig> key) {
  return only_where<ModelConfig>(
      [](const ModelConfig& model) { return model.num_local_experts > 0; },
      default_config(ModelFamily::llama4_text),
      "a model without experts has no such thing; give num_local_experts, or remove the key",
      std::move(key));
}

Keys<ModelConfig> expert_keys() {
  using C = ModelConfig;
  return {
      optional_key("num_local_experts", &C::num_local_experts, integer(1, 65'536),
                   "experts of a layer; left out: none, but 16 for llama4_text"),
      of_experts(key("num_experts_per_tok", &C::num_experts_per_tok, integer(1, 65'536),
                     "experts that a token goes through, beside the shared one")),
      of_experts(optional_key("intermediate_size_mlp", &C::intermediate_size_mlp,
                              integer(1, 1 << 22), "width of the MLP of layers without experts")),
      of_experts(key("interleave_moe_layer_step", &C::interleave_moe_layer_step, integer(1, 10'000),
                     "the last of so many layers has experts")),
      of_experts(optional_key("moe_layers", &C::moe_layers, list_of(integer(0, 10'000)),
                              "layers with experts, from 0; left out: by the step")),
  };
}

Keys<ModelConfig> llama4_keys() {
  using C = ModelConfig;
  using Type = LayerType;
  const auto ours = [](Key<C> key) { return of_family(ModelFamily::llama4_text, std::move(key)); };
  return {
      ours(optional_key("no_rope_layers", &C::no_rope_layers, list_of(integer(0, 1)),
                        "by layer, 1: has rope, 0: not; left out: by the interval")),
      ours(key("no_rope_layer_interval", &C::no_rope_layer_interval, integer(1, 10'000),
               "the last of so many layers has no rope")),
      ours(key("attention_chunk_size", &C::attention_chunk_size, or_null(integer(1)),
               "tokens of a document that rope layers see at a time; null: all")),
      ours(optional_key("layer_types", &C::layer_types,
                        list_of(choice<Type>({{"chunked_attention", Type::chunked_attention},
                                              {"full_attention", Type::full_attention}})),
                        "by layer; left out: rope layers are chunked")),
      ours(key("use_qk_norm", &C::use_qk_norm, boolean(),
               "queries and keys of rope layers are normed")),
      ours(key("attn_temperature_tuning", &C::attn_temperature_tuning, boolean(),
               "queries of the other layers grow with their position")),
      ours(key("floor_scale", &C::floor_scale, positive_real(), "positions of one step of it")),
      ours(key("attn_scale", &C::attn_scale, real(0, 1e6), "how much")),
  };
}

Keys<ModelConfig> plain_model_keys() {
  using C = ModelConfig;
  return {
      family_key(),
      optional_key("vocab_size", &C::vocab_size, integer(1, 1 << 24),
                   "tokens of the vocabulary; left out: that of the data"),
      required(key("hidden_size", &C::hidden_size, integer(1, 1 << 20), "width of the residual")),
      required(key("intermediate_size", &C::intermediate_size, integer(1, 1 << 22),
                   "width of the MLP, or of every expert")),
      required(key("num_hidden_layers", &C::num_hidden_layers, integer(1, 10'000), "layers")),
      required(key("num_attention_heads", &C::num_attention_heads, integer(1, 65'536),
                   "query heads of a layer")),
      optional_key("num_key_value_heads", &C::num_key_value_heads, integer(1, 65'536),
                   "key and value heads; left out: as many as query heads"),
      optional_key("head_dim", &C::head_dim, integer(1, 65'536),
                   "width of a head; left out: hidden_size / num_attention_heads"),
      key("max_position_embeddings", &C::max_position_embeddings, integer(1),
          "longest sequence that the model is for"),
      key("initializer_range", &C::initializer_range, real(0, 10),
          "standard deviation of the initial weights"),
      key("rms_norm_eps", &C::rms_norm_eps, positive_real(), "epsilon of RMSNorm"),
      key("tie_word_embeddings", &C::tie_word_embeddings, boolean(),
          "the output projection is the embedding"),
      key("rope_theta", &C::rope_theta, positive_real(), "base of the rotary frequencies"),
      optional_section("rope_scaling", &C::rope_scaling, rope_scaling_keys(),
                       "stretches the rotary frequencies"),
      key("attention_bias", &C::attention_bias, boolean(), "biases on q, k, v and o"),
      of_family(ModelFamily::llama,
                key("mlp_bias", &C::mlp_bias, boolean(), "biases on gate, up and down")),
  };
}

}  // namespace

// In the order in which they are read: family and num_local_experts decide what comes after them.
Keys<ModelConfig> model_keys() {
  Keys<ModelConfig> keys = plain_model_keys();
  for (auto&& more : {expert_keys(), llama4_keys()})
    keys.insert(keys.end(), more.begin(), more.end());
  keys.push_back(optional_key("init_from", &ModelConfig::init_from, text(),
                              "a Hugging Face folder, checkpoint or run: training starts from its "
                              "weights, and keys that are left out are its"));
  return keys;
}

namespace {

Keys<RopeScaling> rope_scaling_keys() {
  using C = RopeScaling;
  return {
      required(constant_key<C>("rope_type", "llama3", "the method")),
      required(key("factor", &C::factor, real(1, 1e6), "divides the low frequencies")),
      required(key("low_freq_factor", &C::low_freq_factor, positive_real(),
                   "wavelengths above original / this are divided")),
      required(key("high_freq_factor", &C::high_freq_factor, positive_real(),
                   "wavelengths below original / this are kept")),
      required(key("original_max_position_embeddings", &C::original_max_position_embeddings,
                   integer(1), "the length that the frequencies were made for")),
  };
}

Keys<DataSource> source_keys() {
  using C = DataSource;
  return {
      required(key("path", &C::path, text(),
                   "what `caravan data build` wrote; or a .bin of nanoGPT or llm.c, or a .bin with "
                   "its .idx of Megatron-LM")),
      key("weight", &C::weight, positive_real(), "share of the samples, relative to the others"),
  };
}

Keys<DataConfig> data_keys() {
  using C = DataConfig;
  return {
      required(
          section_list("train", &C::train, source_keys(), &DataSource::path, "what is trained on")),
      optional_key("validation", &C::validation, text(), "held-out data; left out: no evaluation"),
      required(key("sequence_len", &C::sequence_len, integer(2, 1 << 24), "tokens of a sequence")),
      key("attend_across_documents", &C::attend_across_documents, boolean(),
          "tokens see earlier documents of their sequence"),
      optional_key("tokenizer", &C::tokenizer, text(),
                   "of .bin files: a tokenizer, to take the next three from"),
      optional_key("vocab_size", &C::vocab_size, integer(1, 1 << 24),
                   "of .bin files: tokens of the vocabulary"),
      optional_key("eos_token_id", &C::eos_token_id, integer(0, 1 << 24),
                   "of .bin files: the token between documents"),
      optional_key("bos_token_id", &C::bos_token_id, integer(0, 1 << 24),
                   "of .bin files: the token that documents begin with, if any"),
  };
}

Keys<TrainConfig> train_keys() {
  using C = TrainConfig;
  return {
      required(key("max_steps", &C::max_steps, integer(1), "optimizer steps of the run")),
      required(key("micro_batch_size", &C::micro_batch_size, integer(1, 1 << 20),
                   "sequences per process at a time")),
      required(key("global_batch_size", &C::global_batch_size, integer(1, 1 << 30),
                   "sequences per step, over all processes")),
      key("seed", &C::seed, integer(0), "of all random numbers"),
      key("eval_steps", &C::eval_steps, integer(0),
          "steps between evaluations; 0: only at the end of a run"),
      key("eval_batches", &C::eval_batches, integer(0), "global batches of one; 0: all the data"),
      key("max_skipped", &C::max_skipped, integer(0),
          "updates skipped in a row (loss or gradient norm not finite) before the run ends"),
  };
}

Keys<OptimizerConfig> optimizer_keys() {
  using C = OptimizerConfig;
  using Type = LrScheduleKind;
  return {
      key("name", &C::name, choice<OptimizerName>({{"adamw", OptimizerName::adamw}}), "method"),
      required(key("learning_rate", &C::learning_rate, positive_real(), "the highest rate")),
      key("weight_decay", &C::weight_decay, real(0, 100), "decoupled; not on norms and biases"),
      key("adam_beta1", &C::adam_beta1, real(0, 0.999999), "memory of the mean gradient"),
      key("adam_beta2", &C::adam_beta2, real(0, 0.999999), "memory of its square"),
      key("adam_epsilon", &C::adam_epsilon, positive_real(), "added to the denominator"),
      key("max_grad_norm", &C::max_grad_norm, real(0, 1e9),
          "longer gradients are shortened to it; 0: never"),
      key("lr_scheduler_type", &C::lr_scheduler_type,
          choice<Type>({{"constant", Type::constant},
                        {"linear", Type::linear},
                        {"cosine", Type::cosine},
                        {"wsd", Type::wsd}}),
          "how the rate falls after the warmup"),
      key("warmup_steps", &C::warmup_steps, integer(0), "steps in which the rate rises"),
      key("min_lr_ratio", &C::min_lr_ratio, real(0, 1), "the last rate / learning_rate"),
      key("decay_steps", &C::decay_steps, integer(0), "of wsd: the steps in which the rate falls"),
  };
}

Keys<ParallelConfig> parallel_keys() {
  using C = ParallelConfig;
  return {
      key("dp", &C::dp, or_auto(integer(1, 1 << 20)),
          "groups of processes that share each batch; auto: what tp and ep leave of the processes"),
      key("tp", &C::tp, or_auto(integer(1, 1 << 20)),
          "processes that share the heads, MLPs and vocabulary of a model"),
      key("ep", &C::ep, or_auto(integer(1, 1 << 20)),
          "processes that share the experts, and the batch as those of dp do"),
      key("zero", &C::zero, integer(0, 3),
          "1: shards the optimizer's state over dp; 2: the gradients too; 3: the weights too"),
      key("sequence_parallel", &C::sequence_parallel, boolean(),
          "shards over tp what lies between attention and MLP, by tokens"),
      key("bucket_bytes", &C::bucket_bytes, byte_size(), "gradients that are reduced together"),
  };
}

Keys<MoeConfig> moe_keys() {
  using C = MoeConfig;
  return {
      optional_key("capacity_factor", &C::capacity_factor, positive_real(),
                   "an expert takes this multiple of its equal share of a sequence's tokens, the "
                   "rest is dropped; left out: none is"),
      key("slots", &C::slots, or_auto(real(1e-6, 1e6)),
          "rows that a process has room for, as a multiple of those that it routes: more go "
          "through in further passes; auto: 1, with expert parallelism 1.5"),
      key("balance", &C::balance,
          choice<Balance>(
              {{"bias", Balance::bias}, {"aux_loss", Balance::aux_loss}, {"none", Balance::none}}),
          "what keeps experts equally busy: a bias on the choice, which is no part of the loss, or "
          "a loss"),
      key("bias_update_rate", &C::bias_update_rate, real(0, 1), "of balance bias: change per step"),
      key("aux_loss_coef", &C::aux_loss_coef, real(0, 1e3), "of balance aux_loss: its weight"),
      key("z_loss_coef", &C::z_loss_coef, real(0, 1e3),
          "weight of the loss that keeps the router's logits small"),
  };
}

Keys<RuntimeConfig> runtime_keys() {
  using C = RuntimeConfig;
  return {
      key("device", &C::device,
          choice<DeviceKind>({{"auto", DeviceKind::automatic},
                              {"cpu", DeviceKind::cpu},
                              {"cuda", DeviceKind::cuda}}),
          "where it runs; auto: on what this program and machine have"),
      key("dtype", &C::dtype, choice<DType>({{"float32", DType::f32}, {"bfloat16", DType::bf16}}),
          "type of activations and of matrix products; weights, their gradients and the "
          "optimizer's "
          "state are float32 with either; bfloat16 computes on CUDA only"),
      key("memory_limit", &C::memory_limit, or_auto(byte_size()),
          "what a process may hold, on CUDA of the device's memory; the variable CARAVAN_MEMLIMIT "
          "wins"),
      key("threads", &C::threads, or_auto(integer(1, 4096)), "compute threads of a process"),
      key("keep_all", &C::keep_all, boolean(), "no memory is used twice: to look for errors"),
      key("overlap", &C::overlap, boolean(), "communicates while it computes"),
      key("deterministic", &C::deterministic, boolean(),
          "CUDA: only algorithms that give the same bits each run; the CPU always does"),
      key("cuda_graph", &C::cuda_graph, boolean(),
          "CUDA: records a step once and starts it as a whole"),
      key("watchdog_seconds", &C::watchdog_seconds, integer(0, 1 << 20),
          "a process that does nothing for so long, and for 10 steps, hangs and ends the job (10 "
          "times as "
          "long while it loads or saves); 0: off"),
      key("recompute", &C::recompute,
          choice<Recompute>({{"auto", Recompute::automatic}, {"none", Recompute::none}}),
          "what backward makes again instead of keeping it; auto: results of norms and SwiGLU, "
          "casts of weights"),
  };
}

// auto, false or a path; a path of that very name goes in quotes.
Format<ResumeFrom> resume_format() {
  using Kind = ResumeFrom::Kind;
  return {.words = "auto, false or the path of a checkpoint",
          .read = [](const YamlNode& node) -> std::optional<ResumeFrom> {
            if (node.kind != YamlNode::Kind::scalar || node.text.empty()) return {};
            if (!node.quoted && node.text == "auto") return ResumeFrom{Kind::automatic, ""};
            if (!node.quoted && node.text == "false") return ResumeFrom{Kind::never, ""};
            if (!node.quoted && node.text == "true") return {};
            return ResumeFrom{Kind::path, node.text};
          },
          .write =
              [](const ResumeFrom& from) {
                if (from.kind == Kind::path) return yaml_string(from.path);
                return yaml_scalar(from.kind == Kind::never ? "false" : "auto");
              }};
}

Keys<CheckpointConfig> checkpoint_keys() {
  using C = CheckpointConfig;
  return {
      key("save_steps", &C::save_steps, integer(0),
          "steps between checkpoints; 0: at the end only"),
      key("save_total_limit", &C::save_total_limit, integer(1), "how many of the newest are kept"),
      key("copy_bytes", &C::copy_bytes, or_auto(byte_size(true)),
          "per process: copies at most this of a checkpoint to go on while it is written; auto: "
          "all, if the memory limit has room"),
      key("on_save_error", &C::on_save_error,
          choice<OnSaveError>({{"stop", OnSaveError::stop}, {"continue", OnSaveError::go_on}}),
          "when a checkpoint cannot be written"),
      key("resume_from_checkpoint", &C::resume_from_checkpoint, resume_format(),
          "auto: the newest of output_dir, if any; false: start anew; a path: from there, and when "
          "started again from what output_dir has since"),
  };
}

Keys<LogConfig> log_keys() {
  using C = LogConfig;
  return {
      key("logging_steps", &C::logging_steps, integer(1), "steps between lines"),
      key("report_to", &C::report_to,
          list_of(choice<ReportFormat>({{"jsonl", ReportFormat::jsonl}})), "files of metrics"),
  };
}

}  // namespace

Keys<Config> config_keys() {
  using C = Config;
  return {
      required(key("output_dir", &C::output_dir, text(), "the folder of the run")),
      section("model", &C::model, model_keys(), "what is trained"),
      section("data", &C::data, data_keys(), "on what"),
      section("train", &C::train, train_keys(), "for how long"),
      section("optimizer", &C::optimizer, optimizer_keys(), "how weights change"),
      section("parallel", &C::parallel, parallel_keys(), "how processes share the work"),
      optional_section("moe", &C::moe, moe_keys(), "how experts are trained"),
      section("runtime", &C::runtime, runtime_keys(), "how a process works"),
      section("checkpoint", &C::checkpoint, checkpoint_keys(), "what is kept"),
      section("log", &C::log, log_keys(), "what is shown"),
  };
}

}  // namespace caravan
