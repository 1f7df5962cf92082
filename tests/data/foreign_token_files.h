// Token files as other programs write them, made byte by byte, so that tests can make any of their
// fields wrong. Little-endian, like the files.
#pragma once

#include <cstdint>
#include <fstream>
#include <string>
#include <type_traits>
#include <vector>

namespace caravan {

template <typename Number>
void put(std::string& bytes, std::type_identity_t<Number> number) {
  bytes.append(reinterpret_cast<const char*>(&number), sizeof(number));
}

template <typename Number, typename Numbers>
std::string packed(const Numbers& numbers) {
  std::string bytes;
  for (const auto number : numbers) put<Number>(bytes, static_cast<Number>(number));
  return bytes;
}

inline void write_file(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

// A file of llm.c: the header that it should have, but for what a test changes.
struct LlmcFile {
  std::vector<int32_t> tokens;
  int32_t magic = 20240520;
  int32_t version = 1;
  int32_t count = static_cast<int32_t>(tokens.size());

  std::string bytes() const {
    std::string header;
    put<int32_t>(header, magic);
    put<int32_t>(header, version);
    put<int32_t>(header, count);
    header.resize(1024, '\0');
    return header + (magic == 20240801 ? packed<uint32_t>(tokens) : packed<uint16_t>(tokens));
  }
};

// An index of Megatron-LM.
struct MegatronIndex {
  std::string magic{"MMIDIDX\0\0", 9};
  uint64_t version = 1;
  uint8_t type = 8;
  std::vector<int32_t> lengths;
  std::vector<int64_t> pointers;
  std::vector<int64_t> documents = {0};
  std::vector<int8_t> modes = {};
  uint64_t num_sequences = lengths.size();
  uint64_t num_documents = documents.size();

  std::string bytes() const {
    std::string bytes = magic;
    put<uint64_t>(bytes, version);
    put<uint8_t>(bytes, type);
    put<uint64_t>(bytes, num_sequences);
    put<uint64_t>(bytes, num_documents);
    return bytes + packed<int32_t>(lengths) + packed<int64_t>(pointers) +
           packed<int64_t>(documents) + packed<int8_t>(modes);
  }
};

// The index of documents of one sequence each.
inline MegatronIndex index_of(const std::vector<int32_t>& lengths, uint8_t type,
                              int64_t token_bytes) {
  MegatronIndex index{.type = type, .lengths = lengths, .pointers = {}};
  int64_t end = 0;
  for (const int32_t length : lengths) {
    index.pointers.push_back(end);
    index.documents.push_back(std::ssize(index.pointers));
    end += length * token_bytes;
  }
  index.num_documents = index.documents.size();
  return index;
}

}  // namespace caravan
