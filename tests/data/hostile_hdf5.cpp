#include "tests/data/hostile_hdf5.h"

#include <gtest/gtest.h>
#include <hdf5.h>

#include <array>
#include <bit>
#include <cstring>
#include <fstream>
#include <iterator>

namespace caravan::test {
namespace {

using Fill = std::function<void(hid_t)>;
using Configure = std::function<void(hid_t)>;
using Make = std::function<void(const std::string&)>;

// A file of that version with what `fill` puts into it.
Make file_of(H5F_libver_t version, const Fill& fill) {
  return [=](const std::string& path) {
    const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_libver_bounds(access, version, H5F_LIBVER_LATEST);
    const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access);
    ASSERT_GE(file, 0) << path;
    fill(file);
    ASSERT_GE(H5Fclose(file), 0) << path;
    H5Pclose(access);
  };
}

Make latest(const Fill& fill) { return file_of(H5F_LIBVER_LATEST, fill); }

void make_dataset(hid_t file, hid_t type, const std::vector<hsize_t>& shape,
                  const Configure& configure) {
  const hid_t space = H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr);
  const hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
  configure(creation);
  const hid_t set = H5Dcreate2(file, "d", type, space, H5P_DEFAULT, creation, H5P_DEFAULT);
  ASSERT_GE(set, 0);
  H5Dclose(set);
  H5Pclose(creation);
  H5Sclose(space);
}

Make dataset(hid_t type, const std::vector<hsize_t>& shape, const Configure& configure) {
  return latest([=](hid_t file) { make_dataset(file, type, shape, configure); });
}

void early(hid_t creation) { H5Pset_alloc_time(creation, H5D_ALLOC_TIME_EARLY); }
void late(hid_t) {}

// The checksum of HDF5's own structures: Bob Jenkins, lookup3, hashlittle() with 0 to start from.
uint32_t lookup3(const std::string& bytes) {
  uint32_t a = 0xdeadbeef + static_cast<uint32_t>(bytes.size()), b = a, c = a;
  std::string padded = bytes + std::string(12, '\0');
  const auto word = [&](size_t at) {
    uint32_t value = 0;
    std::memcpy(&value, padded.data() + at, sizeof(value));
    return value;
  };
  size_t at = 0, left = bytes.size();
  const auto add = [&] { a += word(at), b += word(at + 4), c += word(at + 8); };
  for (; left > 12; at += 12, left -= 12) {
    add();
    a -= c, a ^= std::rotl(c, 4), c += b;
    b -= a, b ^= std::rotl(a, 6), a += c;
    c -= b, c ^= std::rotl(b, 8), b += a;
    a -= c, a ^= std::rotl(c, 16), c += b;
    b -= a, b ^= std::rotl(a, 19), a += c;
    c -= b, c ^= std::rotl(b, 4), b += a;
  }
  if (left == 0) return c;
  add();
  c = (c ^ b) - std::rotl(b, 14);
  a = (a ^ c) - std::rotl(c, 11);
  b = (b ^ a) - std::rotl(a, 25);
  c = (c ^ b) - std::rotl(b, 16);
  a = (a ^ c) - std::rotl(c, 4);
  b = (b ^ a) - std::rotl(a, 14);
  return (c ^ b) - std::rotl(b, 24);
}

std::string little_endian(uint64_t value, size_t num_bytes) {
  std::string bytes(num_bytes, '\0');
  std::memcpy(bytes.data(), &value, num_bytes);
  return bytes;
}

// Replaces `before` in the one object header that holds it, and makes that header's checksum right.
// Layout (HDF5 File Format Specification 3.0, IV.A.1.b): "OHDR", version, flags, times (flag 5),
// phases (flag 4), size of the messages in 1 << (flags & 3) bytes, messages, checksum.
void change_header(const std::string& path, const std::string& before, const std::string& after) {
  std::ifstream input(path, std::ios::binary);
  std::string bytes(std::istreambuf_iterator<char>(input), {});
  const size_t place = bytes.find(before);
  const size_t begin = bytes.rfind("OHDR", place);
  ASSERT_NE(place, std::string::npos);
  ASSERT_NE(begin, std::string::npos);
  const auto flags = static_cast<unsigned char>(bytes[begin + 5]);
  size_t messages = begin + 6 + (flags & 0x20 ? 16 : 0) + (flags & 0x10 ? 4 : 0);
  uint64_t size = 0;
  std::memcpy(&size, bytes.data() + messages, size_t{1} << (flags & 3));
  messages += size_t{1} << (flags & 3);
  const size_t end = messages + size;
  const auto stored = [&] { return bytes.substr(end, 4); };
  const auto computed = [&] { return little_endian(lookup3(bytes.substr(begin, end - begin)), 4); };
  ASSERT_EQ(stored(), computed()) << "not an object header";
  bytes.replace(place, before.size(), after);
  bytes.replace(end, 4, computed());
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

// A dataset of written elements whose header then says `size`, as an attacker would write it.
Make forged_shape(uint64_t size) {
  return [=](const std::string& path) {
    constexpr hsize_t kWritten = 0x1234;
    dataset(H5T_STD_I32LE, {kWritten}, early)(path);
    change_header(path, little_endian(kWritten, 8), little_endian(size, 8));
  };
}

void make_virtual(hid_t creation) {
  const hsize_t size = 16;
  const hid_t space = H5Screate_simple(1, &size, nullptr);
  H5Pset_virtual(creation, space, "/etc/passwd", "/x", space);
  H5Sclose(space);
}

// A dataset of a type that the library makes and we close.
Make typed(const std::function<hid_t()>& make_type) {
  return [=](const std::string& path) {
    const hid_t type = make_type();
    dataset(type, {4}, early)(path);
    H5Tclose(type);
  };
}

hid_t variable_text() {
  const hid_t text = H5Tcopy(H5T_C_S1);
  H5Tset_size(text, H5T_VARIABLE);
  return text;
}

hid_t compound() {
  const hid_t type = H5Tcreate(H5T_COMPOUND, 4);
  H5Tinsert(type, "x", 0, H5T_STD_I32LE);
  return type;
}

void add(std::vector<HostileHdf5>& files, const std::string& refusal,
         const std::vector<std::pair<std::string, Make>>& makes) {
  for (const auto& [name, make] : makes) files.push_back({name, refusal, make});
}

void add_structures(std::vector<HostileHdf5>& files) {
  const Fill good = [](hid_t file) { make_dataset(file, H5T_STD_I32LE, {1}, early); };
  add(files, "superblock version",
      {{"superblock 0", file_of(H5F_LIBVER_EARLIEST, good)},
       {"superblock 2", file_of(H5F_LIBVER_V18, good)}});
  add(files, "soft and external links are refused",
      {{"soft link",
        latest([](hid_t file) { H5Lcreate_soft("/d", file, "d", H5P_DEFAULT, H5P_DEFAULT); })},
       {"external link", latest([](hid_t file) {
          H5Lcreate_external("/etc/passwd", "/x", file, "d", H5P_DEFAULT, H5P_DEFAULT);
        })}});
  add(files, "linked twice", {{"cycle of hard links", latest([](hid_t file) {
                                 const hid_t group =
                                     H5Gcreate2(file, "d", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
                                 H5Lcreate_hard(file, "/d", group, "d", H5P_DEFAULT, H5P_DEFAULT);
                                 H5Gclose(group);
                               })}});
  add(files, "nested too deeply",
      {{"deep groups", latest([](hid_t file) {
          const hid_t links = H5Pcreate(H5P_LINK_CREATE);
          H5Pset_create_intermediate_group(links, 1);
          std::string name = "d";
          for (int depth = 0; depth < 40; ++depth) name += "/d";
          H5Gclose(H5Gcreate2(file, name.c_str(), links, H5P_DEFAULT, H5P_DEFAULT));
          H5Pclose(links);
        })}});
  add(files, "neither a group nor a dataset", {{"named type", latest([](hid_t file) {
                                                  const hid_t type = H5Tcopy(H5T_STD_I32LE);
                                                  H5Tcommit2(file, "d", type, H5P_DEFAULT,
                                                             H5P_DEFAULT, H5P_DEFAULT);
                                                  H5Tclose(type);
                                                })}});
}

void add_storage(std::vector<HostileHdf5>& files) {
  const auto chunked = [](const Configure& filter) {
    return dataset(H5T_STD_I32LE, {16}, [=](hid_t creation) {
      const hsize_t chunk = 4;
      H5Pset_chunk(creation, 1, &chunk);
      filter(creation);
    });
  };
  add(files, "only contiguous",
      {{"chunks", chunked(late)},
       {"filter: deflate", chunked([](hid_t creation) { H5Pset_deflate(creation, 9); })},
       {"filter: fletcher32", chunked([](hid_t creation) { H5Pset_fletcher32(creation); })},
       {"filter: shuffle", chunked([](hid_t creation) { H5Pset_shuffle(creation); })},
       {"filter: a plugin", chunked([](hid_t creation) {
          H5Pset_filter(creation, 32001, H5Z_FLAG_OPTIONAL, 0, nullptr);
        })},
       {"compact",
        dataset(H5T_STD_I32LE, {16}, [](hid_t creation) { H5Pset_layout(creation, H5D_COMPACT); })},
       {"virtual", dataset(H5T_STD_I32LE, {16}, make_virtual)}});
  add(files, "external storage is refused",
      {{"external storage", dataset(H5T_STD_I32LE, {16}, [](hid_t creation) {
          H5Pset_external(creation, "/etc/passwd", 0, 64);
        })}});
  add(files, "never written",
      {{"no storage", dataset(H5T_STD_I32LE, {1000}, late)},
       {"huge and no storage", dataset(H5T_STD_I32LE, {hsize_t{1} << 60}, late)}});
  add(files, "its size overflows",
      {{"2^63 bytes", dataset(H5T_STD_I64LE, {hsize_t{1} << 60}, late)},
       {"2^66 bytes in two dims",
        dataset(H5T_STD_I32LE, {hsize_t{1} << 30, hsize_t{1} << 31}, late)}});
  // Sizes at which the library itself gives up.
  add(files, "'d': cannot open",
      {{"forged: 2^63 elements", forged_shape(uint64_t{1} << 63)},
       {"forged: all bits set", forged_shape(UINT64_MAX - 1)}});
  add(files, "do not fit into the file",
      {{"forged: twice as long", forged_shape(0x2468)},
       {"forged: 2^60 elements", forged_shape(uint64_t{1} << 60)}});
}

void add_types(std::vector<HostileHdf5>& files) {
  add(files, "its element type is not one of",
      {{"variable length", typed([] { return H5Tvlen_create(H5T_STD_I32LE); })},
       {"variable text", typed(variable_text)},
       {"compound", typed(compound)},
       {"big-endian integers", typed([] { return H5Tcopy(H5T_STD_I32BE); })},
       {"big-endian reals", typed([] { return H5Tcopy(H5T_IEEE_F64BE); })},
       {"references", typed([] { return H5Tcopy(H5T_STD_REF_OBJ); })}});
  add(files, "attribute 'a' is not a scalar",
      {{"attribute list", latest([](hid_t file) {
          const hsize_t size = 3;
          const hid_t space = H5Screate_simple(1, &size, nullptr);
          H5Aclose(H5Acreate2(file, "a", H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT));
          H5Sclose(space);
        })}});
  add(files, "attribute 'v' is neither",
      {{"attribute of variable text", latest([](hid_t file) {
          const hid_t space = H5Screate(H5S_SCALAR);
          const hid_t text = variable_text();
          H5Aclose(H5Acreate2(file, "v", text, space, H5P_DEFAULT, H5P_DEFAULT));
          H5Tclose(text);
          H5Sclose(space);
        })}});
}

}  // namespace

std::vector<HostileHdf5> hostile_hdf5_files() {
  std::vector<HostileHdf5> files;
  add_structures(files);
  add_storage(files);
  add_types(files);
  return files;
}

}  // namespace caravan::test
