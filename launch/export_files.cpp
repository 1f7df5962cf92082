#include "launch/export_files.h"

#include <algorithm>
#include <filesystem>
#include <memory>

#include "data/durable_file.h"
#include "data/hf_tokenizer.h"
#include "data/sentencepiece_tokenizer.h"
#include "data/tokenizer.h"
#include "runtime/error.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

constexpr char kGenerationConfig[] = "generation_config.json";
constexpr int64_t kMaxAssetBytes = int64_t{256} << 20;

const Asset* find_asset(const std::vector<Asset>& assets, std::string_view name) {
  const auto found = std::ranges::find(assets, name, &Asset::name);
  return found == assets.end() ? nullptr : &*found;
}

void check_vocabulary(const Tokenizer& tokenizer, const ModelConfig& model) {
  if (tokenizer.vocab_size() <= model.vocab_size) return;
  throw config_error(
      absl::StrFormat("--tokenizer: %s has %d tokens, the model %d: it is that of another model",
                      tokenizer.path(), tokenizer.vocab_size(), model.vocab_size));
}

// The files of the tokenizer that the user names, or of the checkpoint.
std::vector<Asset> tokenizer_assets(const ModelSource& source, const std::string& tokenizer) {
  std::vector<Asset> assets;
  if (!tokenizer.empty()) {
    const std::unique_ptr<Tokenizer> opened = open_tokenizer(tokenizer);
    check_vocabulary(*opened, source.model());
    for (const std::string& path : opened->files()) {
      const bool is_main = path == opened->path();
      assets.push_back({is_main ? opened->file_name() : fs::path(path).filename().string(), path});
    }
    return assets;
  }
  for (const Asset& asset : source.assets()) {
    if (is_asset(asset.name, AssetKind::tokenizer)) assets.push_back(asset);
  }
  return assets;
}

// The tokenizer that they are, to look into; null when there is none that this program reads.
std::unique_ptr<Tokenizer> try_open(const std::vector<Asset>& assets, std::string& reason) {
  const Asset* file = find_asset(assets, "tokenizer.json");
  if (file == nullptr) file = find_asset(assets, "tokenizer.model");
  if (file == nullptr) return nullptr;
  try {
    return open_tokenizer(file->path);
  } catch (const Error& error) {
    reason = error.what();
    return nullptr;
  }
}

// transformers reads tokenizer.json; a vocabulary of SentencePiece alone is written as one.
void add_tokenizer(const std::vector<Asset>& assets, const Tokenizer* tokenizer,
                   ExportFiles& files) {
  files.copies.insert(files.copies.end(), assets.begin(), assets.end());
  if (assets.empty()) {
    files.notes.push_back("the checkpoint has no tokenizer; pass --tokenizer to add one");
    return;
  }
  const auto* pieces = dynamic_cast<const SentencePieceTokenizer*>(tokenizer);
  if (pieces == nullptr || find_asset(assets, "tokenizer.json") != nullptr) return;
  for (auto& [name, text] : hf_tokenizer_files(*pieces)) {
    std::erase_if(files.copies, [&](const Asset& asset) { return asset.name == name; });
    files.texts[name] = std::move(text);
  }
}

// Ids that no config.json has said are those of the tokenizer.
HfConfig with_ids(HfConfig config, const Tokenizer* tokenizer) {
  if (tokenizer == nullptr || config.bos || !config.eos.empty()) return config;
  if (tokenizer->bos_id() >= 0) config.bos = tokenizer->bos_id();
  if (tokenizer->eos_id() >= 0) config.eos = {tokenizer->eos_id()};
  return config;
}

}  // namespace

ExportFiles export_files(const ModelSource& source, const std::string& tokenizer,
                         SafetensorsDType dtype) {
  ExportFiles files;
  const std::vector<Asset> assets = tokenizer_assets(source, tokenizer);
  std::string unreadable;
  const std::unique_ptr<Tokenizer> opened = try_open(assets, unreadable);
  if (!unreadable.empty())
    files.notes.push_back("the tokenizer is passed on unread: " + unreadable);
  add_tokenizer(assets, opened.get(), files);
  for (const Asset& asset : source.assets()) {
    const bool is_passed_on =
        !is_asset(asset.name, AssetKind::tokenizer) && asset.name != kHfConfigName;
    if (is_passed_on) files.copies.push_back(asset);
  }
  HfConfig config = with_ids(source.hf(), opened.get());
  config.tensor_prefix.clear();  // the text model alone
  const DType stored = dtype == SafetensorsDType::bf16 ? DType::bf16 : DType::f32;
  files.texts[kHfConfigName] = write_hf_config(config, stored, CARAVAN_VERSION);
  if (find_asset(files.copies, kGenerationConfig) == nullptr) {
    files.texts[kGenerationConfig] = write_generation_config(config);
  }
  return files;
}

void write_export_files(const ExportFiles& files, const SafetensorsPlan& plan,
                        const std::string& folder) {
  const auto write = [&](const std::string& name, std::string_view text) {
    write_file_durably(folder + "/" + name, text, ExitCode::checkpoint);
  };
  for (const auto& [name, text] : files.texts) write(name, text);
  for (const Asset& asset : files.copies) {
    write(asset.name, read_file(asset.path, kMaxAssetBytes, ExitCode::checkpoint));
  }
  if (!plan.index.empty()) write(kSafetensorsIndexName, plan.index);
}

}  // namespace caravan
