// How fast text becomes tokens on one thread: bench_tokenizer TOKENIZER TEXT [rounds=N] prints one
// JSON object, MB/s (1e6 bytes) of each round over the whole text. Compared with Hugging Face's
// tokenizers by tokenizer.py.
#include <chrono>
#include <iostream>
#include <memory>

#include "bench_main.h"
#include "data/durable_file.h"
#include "data/tokenizer.h"
#include "data/utf8.h"

namespace caravan {
namespace {

constexpr size_t kDocumentBytes = size_t{64} << 10;

std::vector<std::string> read_documents(const std::string& path) {
  const std::string text = read_file(path, size_t{1} << 32, ExitCode::data);
  std::vector<std::string> documents;
  for (std::string_view rest = text; !rest.empty();) {
    const size_t size = line_cut(rest, kDocumentBytes);
    documents.emplace_back(rest.substr(0, size));
    rest.remove_prefix(size);
  }
  return documents;
}

void time_tokenizer(std::vector<std::string> arguments) {
  const int rounds = take_option(arguments, "rounds", 3);
  if (arguments.size() != 2) {
    throw config_error("usage: bench_tokenizer TOKENIZER TEXT [rounds=N]");
  }
  const std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(arguments[0]);
  const std::vector<std::string> documents = read_documents(arguments[1]);
  size_t num_bytes = 0;
  for (const std::string& document : documents) num_bytes += document.size();
  nlohmann::ordered_json speeds = nlohmann::ordered_json::array();
  std::vector<int32_t> ids;
  for (int round = 0; round < rounds; ++round) {
    ids.clear();
    const auto begin = std::chrono::steady_clock::now();
    for (const std::string& document : documents) tokenizer->encode(document, ids);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    speeds.push_back(static_cast<double>(num_bytes) / 1e6 / seconds.count());
  }
  std::cout << nlohmann::ordered_json{{"bytes", num_bytes},
                                      {"tokens", ids.size()},
                                      {"MB_per_s", speeds}}
            << std::endl;
}

}  // namespace
}  // namespace caravan

int main(int argc, char** argv) {
  return caravan::run_bench("bench_tokenizer", argc, argv, caravan::time_tokenizer);
}
