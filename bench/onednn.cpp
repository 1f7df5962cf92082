// oneDNN alone, as fast as it goes: the yardstick of Caravan's products.
//   bench_onednn THREADS M,N,K,TRANSPOSE_A,TRANSPOSE_B ...      transposes: 0 or 1
// Prints one JSON line, a list of the products with GF/s of each way to ask oneDNN: sgemm, the
// matmul primitive on matrices as they are, and the same on weights that it laid out for itself
// beforehand (that time does not count). The best of some runs, as of a ceiling; c = a b.
#include <omp.h>
#include <oneapi/dnnl/dnnl.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <unordered_map>
#include <vector>

namespace {

using Tag = dnnl::memory::format_tag;
constexpr int kMinRuns = 3;
constexpr double kMinSeconds = 0.15;  // of all runs of a way

struct Product {
  dnnl_dim_t m = 0, n = 0, k = 0;
  int transpose_a = 0, transpose_b = 0;
  double gigaflops() const { return 2e-9 * double(m) * double(n) * double(k); }
};

bool parse(const char* text, Product& p) {
  char rest = 0;
  const int count = std::sscanf(text, "%ld,%ld,%ld,%d,%d%c", &p.m, &p.n, &p.k, &p.transpose_a,
                                &p.transpose_b, &rest);
  return count == 5 && p.m > 0 && p.n > 0 && p.k > 0;
}

double seconds_of(const std::function<void()>& run) {
  const auto start = std::chrono::steady_clock::now();
  run();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double best_seconds(const std::function<void()>& run) {
  run();
  double best = 1e9, total = 0;
  for (int i = 0; i < kMinRuns || total < kMinSeconds; ++i) {
    const double seconds = seconds_of(run);
    best = std::min(best, seconds);
    total += seconds;
  }
  return best;
}

std::vector<float> matrix(dnnl_dim_t rows, dnnl_dim_t columns) {
  std::vector<float> values(static_cast<size_t>(rows * columns));
  for (size_t i = 0; i < values.size(); ++i) values[i] = 0.01f * static_cast<float>(i % 97 + 1);
  return values;
}

class ProductBench {
 public:
  explicit ProductBench(const Product& p)
      : p_(p), a_(matrix(p.m, p.k)), b_(matrix(p.k, p.n)), c_(matrix(p.m, p.n)) {}

  nlohmann::json run() {
    note("sgemm", [this] { sgemm(); });
    time_primitive("matmul", p_.transpose_b ? Tag::ba : Tag::ab);
    time_primitive("matmul, weights laid out", Tag::any);
    return {{"product", {p_.m, p_.n, p_.k, p_.transpose_a, p_.transpose_b}},
            {"gflops", best_},
            {"ways", ways_}};
  }

 private:
  void note(const std::string& way, const std::function<void()>& action) {
    const double gigaflops_per_second = p_.gigaflops() / best_seconds(action);
    ways_[way] = gigaflops_per_second;
    best_ = std::max(best_, gigaflops_per_second);
  }

  void sgemm() {
    const auto status = dnnl_sgemm(p_.transpose_a ? 'T' : 'N', p_.transpose_b ? 'T' : 'N', p_.m,
                                   p_.n, p_.k, 1.0f, a_.data(), p_.transpose_a ? p_.m : p_.k,
                                   b_.data(), p_.transpose_b ? p_.k : p_.n, 0.0f, c_.data(), p_.n);
    if (status != dnnl_success) throw dnnl::error(status, "sgemm");
  }

  void time_primitive(const std::string& way, Tag weights_tag) {
    const auto type = dnnl::memory::data_type::f32;
    const dnnl::memory::desc a({p_.m, p_.k}, type, p_.transpose_a ? Tag::ba : Tag::ab);
    const dnnl::memory::desc b({p_.k, p_.n}, type, p_.transpose_b ? Tag::ba : Tag::ab);
    const dnnl::memory::desc wanted({p_.k, p_.n}, type, weights_tag);
    const dnnl::memory::desc c({p_.m, p_.n}, type, Tag::ab);
    const dnnl::matmul::primitive_desc primitive({a, wanted, c}, engine_);
    const dnnl::matmul matmul(primitive);
    dnnl::memory weights(b, engine_, b_.data());
    if (primitive.weights_desc() != b) {
      dnnl::memory laid_out(primitive.weights_desc(), engine_);
      dnnl::reorder(weights, laid_out).execute(stream_, weights, laid_out);
      stream_.wait();
      weights = laid_out;
    }
    const std::unordered_map<int, dnnl::memory> arguments = {
        {DNNL_ARG_SRC, dnnl::memory(a, engine_, a_.data())},
        {DNNL_ARG_WEIGHTS, weights},
        {DNNL_ARG_DST, dnnl::memory(c, engine_, c_.data())}};
    note(way, [&] {
      matmul.execute(stream_, arguments);
      stream_.wait();
    });
  }

  Product p_;
  std::vector<float> a_, b_, c_;
  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  double best_ = 0;  // GF/s
  nlohmann::json ways_;
};

int usage() {
  std::cerr << "usage: bench_onednn THREADS M,N,K,TRANSPOSE_A,TRANSPOSE_B ..." << std::endl;
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  const int num_threads = argc > 1 ? std::atoi(argv[1]) : 0;
  if (num_threads < 1) return usage();
  omp_set_num_threads(num_threads);
  nlohmann::json results = nlohmann::json::array();
  for (int i = 2; i < argc; ++i) {
    Product product;
    if (!parse(argv[i], product)) return usage();
    results.push_back(ProductBench(product).run());
  }
  const dnnl_version_t* version = dnnl_version();
  const std::string name = std::to_string(version->major) + "." + std::to_string(version->minor) +
                           "." + std::to_string(version->patch);
  std::cout << nlohmann::json{{"version", name}, {"products", results}} << std::endl;
}
