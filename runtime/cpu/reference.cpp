// Every op as its formula says; see reference.h. No function here is shared with the kernels, so
// that a mistake has to be made twice to go unseen.
#include "runtime/cpu/reference.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numbers>

#include "runtime/cpu/reference_matrix.h"

namespace caravan::reference {
// --- embedding -----------------------------------------------------------------------------------

void run(const Embedding&, const KernelArgs& args) {
  const Matrix table = matrix(args.inputs[0]);
  const int32_t* ids = args.inputs[1].as<int32_t>();
  const Matrix y = matrix(args.outputs[0]);
  for (int64_t t = 0; t < y.rows; ++t) {
    const int64_t row = ids[t] - args.inputs[0].begin(0);
    const bool is_here = row >= 0 && row < table.rows;
    for (int64_t i = 0; i < y.columns; ++i) y(t, i) = is_here ? table(row, i) : 0.0f;
  }
}

void run(const EmbeddingGrad& op, const KernelArgs& args) {
  const int32_t* ids = args.inputs[1].as<int32_t>();
  const Matrix dy = matrix(args.inputs[2]);
  const Matrix table = matrix(args.outputs[0]);
  const int64_t first = args.outputs[0].begin(0);
  for (int64_t v = 0; v < table.rows; ++v) {
    for (int64_t i = 0; i < table.columns; ++i) {
      double sum = op.addend == Addend::none ? 0.0f : matrix(args.inputs[3])(v, i);
      for (int64_t t = 0; t < dy.rows; ++t) sum += ids[t] == first + v ? dy(t, i) : 0.0f;
      table(v, i) = rounded(sum);
    }
  }
}

// --- matmul --------------------------------------------------------------------------------------

void run(const MatMul& op, const KernelArgs& args) {
  const Matrix a = matrix(args.inputs[0]);
  const Matrix b = matrix(args.inputs[1]);
  const Matrix c = matrix(args.outputs[0]);
  const int64_t depth = op.transpose_a ? a.rows : a.columns;
  for (int64_t i = 0; i < c.rows; ++i) {
    for (int64_t j = 0; j < c.columns; ++j) {
      double sum = 0;
      for (int64_t k = 0; k < depth; ++k) {
        const double left = op.transpose_a ? a(k, i) : a(i, k);
        sum += left * (op.transpose_b ? b(j, k) : b(k, j));
      }
      if (op.addend != Addend::none) sum += matrix(args.inputs[2])(i, j);
      c(i, j) = rounded(sum);
    }
  }
}

void run(const AddBias&, const KernelArgs& args) {
  const Matrix x = matrix(args.inputs[0]);
  const Matrix y = matrix(args.outputs[0]);
  for (int64_t t = 0; t < x.rows; ++t) {
    for (int64_t i = 0; i < x.columns; ++i) y(t, i) = x(t, i) + args.inputs[1].as<float>()[i];
  }
}

void run(const SumRows&, const KernelArgs& args) {
  const Matrix x = matrix(args.inputs[0]);
  for (int64_t i = 0; i < x.columns; ++i) {
    double sum = 0;
    for (int64_t t = 0; t < x.rows; ++t) sum += x(t, i);
    args.outputs[0].as<float>()[i] = rounded(sum);
  }
}

// --- norm ----------------------------------------------------------------------------------------

void run(const RmsNorm& op, const KernelArgs& args) {
  const Matrix x = matrix(args.inputs[0]);
  const float* weight = args.inputs[1].as<float>();
  const Matrix y = matrix(args.outputs[0]);
  for (int64_t t = 0; t < x.rows; ++t) {
    double sum = 0;
    for (int64_t i = 0; i < x.columns; ++i) sum += double{x(t, i)} * x(t, i);
    const double rstd = 1.0 / std::sqrt(sum / static_cast<double>(x.columns) + op.eps);
    for (int64_t i = 0; i < x.columns; ++i) y(t, i) = rounded(x(t, i) * rstd * weight[i]);
    args.outputs[1].as<float>()[t] = rounded(rstd);
  }
}

// y_i = x_i r w_i with r = (mean(x^2) + eps)^(-1/2), so dr/dx_j = -r^3 x_j / D.
void run(const RmsNormGrad& op, const KernelArgs& args) {
  const Matrix x = matrix(args.inputs[0]);
  const float* weight = args.inputs[1].as<float>();
  const float* rstd = args.inputs[2].as<float>();
  const Matrix dy = matrix(args.inputs[3]);
  const Matrix dx = matrix(args.outputs[0]);
  float* dweight = args.outputs[1].as<float>();
  for (int64_t t = 0; t < x.rows; ++t) {
    const double r = rstd[t];
    double drstd = 0;
    for (int64_t i = 0; i < x.columns; ++i) drstd += double{dy(t, i)} * weight[i] * x(t, i);
    const double from_rstd = drstd * r * r * r / static_cast<double>(x.columns);
    for (int64_t i = 0; i < x.columns; ++i) {
      const double before = op.addend == Addend::none ? 0.0f : matrix(args.inputs[4])(t, i);
      dx(t, i) = rounded(before + double{dy(t, i)} * weight[i] * r - from_rstd * x(t, i));
    }
  }
  for (int64_t i = 0; i < x.columns; ++i) {
    double sum = 0;
    for (int64_t t = 0; t < x.rows; ++t) sum += double{dy(t, i)} * x(t, i) * rstd[t];
    dweight[i] = rounded(sum);
  }
}

void run(const HeadNorm& op, const KernelArgs& args) {
  const Matrix x = matrix(args.inputs[0]);
  const Matrix y = matrix(args.outputs[0]);
  const Matrix rstd = matrix(args.outputs[1]);
  for (int64_t t = 0; t < x.rows; ++t) {
    for (int64_t head = 0; head < rstd.columns; ++head) {
      const int64_t first = head * op.head_dim;
      double sum = 0;
      for (int64_t i = first; i < first + op.head_dim; ++i) sum += double{x(t, i)} * x(t, i);
      const double r = 1.0 / std::sqrt(sum / static_cast<double>(op.head_dim) + op.eps);
      for (int64_t i = first; i < first + op.head_dim; ++i) y(t, i) = rounded(x(t, i) * r);
      rstd(t, head) = rounded(r);
    }
  }
}

// As RmsNormGrad, head by head and without weights.
void run(const HeadNormGrad& op, const KernelArgs& args) {
  const Matrix x = matrix(args.inputs[0]);
  const Matrix rstd = matrix(args.inputs[1]);
  const Matrix dy = matrix(args.inputs[2]);
  const Matrix dx = matrix(args.outputs[0]);
  for (int64_t t = 0; t < x.rows; ++t) {
    for (int64_t head = 0; head < rstd.columns; ++head) {
      const int64_t first = head * op.head_dim;
      const double r = rstd(t, head);
      double drstd = 0;
      for (int64_t i = first; i < first + op.head_dim; ++i) drstd += double{dy(t, i)} * x(t, i);
      const double from_rstd = drstd * r * r * r / static_cast<double>(op.head_dim);
      for (int64_t i = first; i < first + op.head_dim; ++i) {
        dx(t, i) = rounded(dy(t, i) * r - from_rstd * x(t, i));
      }
    }
  }
}

// --- rope ----------------------------------------------------------------------------------------

namespace {

double rope_frequency(const Rope& op, int64_t pair) {
  const double plain = std::pow(op.theta, -2.0 * double(pair) / double(op.head_dim));
  if (!op.scaling) return plain;
  const RopeScaling& s = *op.scaling;
  const double turns =  // of this pair over the original context
      double(s.original_max_position_embeddings) * plain / (2.0 * std::numbers::pi);
  if (turns > s.high_freq_factor) return plain;
  if (turns < s.low_freq_factor) return plain / s.factor;
  const double smooth = (turns - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
  return (1.0 - smooth) * plain / s.factor + smooth * plain;
}

}  // namespace

void run(const Rope& op, const KernelArgs& args) {
  const Matrix x = matrix(args.inputs[0]);
  const int32_t* positions = args.inputs[1].as<int32_t>();
  const Matrix y = matrix(args.outputs[0]);
  const int64_t pairs = op.head_dim / 2;
  for (int64_t t = 0; t < x.rows; ++t) {
    for (int64_t head = 0; head < x.columns; head += op.head_dim) {
      for (int64_t i = 0; i < pairs; ++i) {
        const double angle = positions[t] * rope_frequency(op, i) * (op.inverse ? -1.0 : 1.0);
        const int64_t first = head + (op.interleaved ? 2 * i : i);
        const int64_t second = first + (op.interleaved ? 1 : pairs);
        const double a = x(t, first);
        const double b = x(t, second);
        y(t, first) = rounded(a * std::cos(angle) - b * std::sin(angle));
        y(t, second) = rounded(a * std::sin(angle) + b * std::cos(angle));
      }
    }
  }
}

void run(const TemperatureScale& op, const KernelArgs& args) {
  const Matrix x = matrix(args.inputs[0]);
  const Matrix y = matrix(args.outputs[0]);
  for (int64_t t = 0; t < x.rows; ++t) {
    const double position = args.inputs[1].as<int32_t>()[t];
    const double scale =
        1.0 + op.attn_scale * std::log(1.0 + std::floor((position + 1.0) / op.floor_scale));
    for (int64_t i = 0; i < x.columns; ++i) y(t, i) = rounded(scale * x(t, i));
  }
}

// The last multiple of `chunk` from the document's start that is not behind the token.
void run(const ChunkStart& op, const KernelArgs& args) {
  for (int64_t t = 0; t < args.inputs[0].size(); ++t) {
    int64_t start = args.inputs[0].as<int32_t>()[t];
    while (start + op.chunk <= t % op.sequence_len) start += op.chunk;
    args.outputs[0].as<int32_t>()[t] = static_cast<int32_t>(start);
  }
}

// --- attention -----------------------------------------------------------------------------------

namespace {

// One query head of one token: the keys it sees, its softmax over them.
struct ScoreRow {
  int64_t token;      // in the batch
  int64_t first_key;  // in the batch; the last is the token itself
  int64_t query_at;   // column of q, out
  int64_t key_at;     // column of k, v
  double log_sum_exp;
  std::vector<double> weights;  // of keys first_key..token
};

// Columns of q and k where a head and what it reads begin.
struct HeadColumns {
  int64_t query;
  int64_t key;
};

ScoreRow softmax_row(int64_t head_dim, int64_t first_key, int64_t token, const HeadColumns& at,
                     const Matrix& q, const Matrix& k) {
  ScoreRow row{token, first_key, at.query, at.key, 0, {}};
  for (int64_t key = first_key; key <= token; ++key) {
    double dot = 0;
    for (int64_t i = 0; i < head_dim; ++i) {
      dot += double{q(token, row.query_at + i)} * k(key, row.key_at + i);
    }
    row.weights.push_back(dot / std::sqrt(static_cast<double>(head_dim)));
  }
  const double largest = *std::max_element(row.weights.begin(), row.weights.end());
  double sum = 0;
  for (const double score : row.weights) sum += std::exp(score - largest);
  row.log_sum_exp = largest + std::log(sum);
  for (double& score : row.weights) score = std::exp(score - row.log_sum_exp);
  return row;
}

// visit(row) for every token and query head.
template <typename Op, typename Visit>
void for_each_row(const Op& op, const KernelArgs& args, const Visit& visit) {
  const Matrix q = matrix(args.inputs[0]);
  const Matrix k = matrix(args.inputs[1]);
  const int32_t* document_start = args.inputs[3].as<int32_t>();
  for (int64_t t = 0; t < q.rows; ++t) {
    const int64_t first_key = t / op.sequence_len * op.sequence_len + document_start[t];
    for (int64_t head = 0; head < q.columns / op.head_dim; ++head) {
      const int64_t kv_head = (args.inputs[0].begin(1) / op.head_dim + head) / op.group;
      const HeadColumns at{head * op.head_dim, kv_head * op.head_dim - args.inputs[1].begin(1)};
      visit(head, softmax_row(op.head_dim, first_key, t, at, q, k));
    }
  }
}

}  // namespace

void run(const Attention& op, const KernelArgs& args) {
  const Matrix v = matrix(args.inputs[2]);
  const Matrix out = matrix(args.outputs[0]);
  const Matrix lse = matrix(args.outputs[1]);
  for_each_row(op, args, [&](int64_t head, const ScoreRow& row) {
    lse(row.token, head) = rounded(row.log_sum_exp);
    for (int64_t i = 0; i < op.head_dim; ++i) {
      double sum = 0;
      for (int64_t key = row.first_key; key <= row.token; ++key) {
        sum += row.weights[static_cast<size_t>(key - row.first_key)] * v(key, row.key_at + i);
      }
      out(row.token, row.query_at + i) = rounded(sum);
    }
  });
}

void run(const AttentionGrad& op, const KernelArgs& args) {
  const Matrix q = matrix(args.inputs[0]);
  const Matrix k = matrix(args.inputs[1]);
  const Matrix v = matrix(args.inputs[2]);
  const Matrix dout = matrix(args.inputs[6]);
  const Matrix dq = matrix(args.outputs[0]);
  std::vector<double> dq_sum(static_cast<size_t>(q.rows * q.columns));
  std::vector<double> dk_sum(static_cast<size_t>(k.rows * k.columns));
  std::vector<double> dv_sum(dk_sum.size());
  const double scale = 1.0 / std::sqrt(static_cast<double>(op.head_dim));
  for_each_row(op, args, [&](int64_t, const ScoreRow& row) {
    std::vector<double> dweights;
    double mean = 0;  // of dweights under the softmax
    for (int64_t key = row.first_key; key <= row.token; ++key) {
      const double weight = row.weights[static_cast<size_t>(key - row.first_key)];
      double dweight = 0;
      for (int64_t i = 0; i < op.head_dim; ++i) {
        const double d = dout(row.token, row.query_at + i);
        dweight += d * v(key, row.key_at + i);
        dv_sum[static_cast<size_t>(key * v.columns + row.key_at + i)] += weight * d;
      }
      dweights.push_back(dweight);
      mean += weight * dweight;
    }
    for (int64_t key = row.first_key; key <= row.token; ++key) {
      const size_t at = static_cast<size_t>(key - row.first_key);
      const double dscore = row.weights[at] * (dweights[at] - mean) * scale;
      for (int64_t i = 0; i < op.head_dim; ++i) {
        const int64_t query_at = row.token * q.columns + row.query_at + i;
        const int64_t key_at = key * k.columns + row.key_at + i;
        dq_sum[static_cast<size_t>(query_at)] += dscore * k.data[key_at];
        dk_sum[static_cast<size_t>(key_at)] += dscore * q.data[query_at];
      }
    }
  });
  std::transform(dq_sum.begin(), dq_sum.end(), dq.data, rounded);
  std::transform(dk_sum.begin(), dk_sum.end(), args.outputs[1].as<float>(), rounded);
  std::transform(dv_sum.begin(), dv_sum.end(), args.outputs[2].as<float>(), rounded);
}

// --- activation ----------------------------------------------------------------------------------

void run(const SwiGlu&, const KernelArgs& args) {
  for (int64_t i = 0; i < args.outputs[0].size(); ++i) {
    const double gate = args.inputs[0].as<float>()[i];
    args.outputs[0].as<float>()[i] = rounded(gate * sigmoid(gate) * args.inputs[1].as<float>()[i]);
  }
}

void run(const SwiGluGrad&, const KernelArgs& args) {
  for (int64_t i = 0; i < args.outputs[0].size(); ++i) {
    const double gate = args.inputs[0].as<float>()[i];
    const double up = args.inputs[1].as<float>()[i];
    const double dy = args.inputs[2].as<float>()[i];
    const double s = sigmoid(gate);
    args.outputs[0].as<float>()[i] = rounded(dy * up * (s + gate * s * (1.0 - s)));
    args.outputs[1].as<float>()[i] = rounded(dy * gate * s);
  }
}

void run(const Add&, const KernelArgs& args) {
  for (int64_t i = 0; i < args.outputs[0].size(); ++i) {
    args.outputs[0].as<float>()[i] = args.inputs[0].as<float>()[i] + args.inputs[1].as<float>()[i];
  }
}

// --- cast ----------------------------------------------------------------------------------------

namespace {

// A bf16 has 8 significant bits, and no bit below 2^-133.
float nearest_bfloat16(double value) {
  if (!std::isfinite(value) || value == 0) return rounded(value);
  int exponent = 0;
  std::frexp(value, &exponent);
  const int last_bit = std::max(exponent - 8, -133);
  const double nearest = std::ldexp(std::nearbyint(std::ldexp(value, -last_bit)), last_bit);
  const bool too_large = std::abs(nearest) > std::numeric_limits<float>::max();
  return too_large ? std::copysign(HUGE_VALF, rounded(value)) : rounded(nearest);
}

float element(const TensorView& view, int64_t i) {
  if (view.dtype == DType::f32) return view.as<float>()[i];
  return std::bit_cast<float>(uint32_t{view.as<uint16_t>()[i]} << 16);
}

}  // namespace

void run(const Cast& op, const KernelArgs& args) {
  const TensorView& to = args.outputs[0];
  for (int64_t i = 0; i < to.size(); ++i) {
    const float value = element(args.inputs[0], i);
    const float result = op.to == DType::bf16 ? nearest_bfloat16(value) : value;
    if (to.dtype == DType::f32)
      to.as<float>()[i] = result;
    else
      to.as<uint16_t>()[i] = static_cast<uint16_t>(std::bit_cast<uint32_t>(result) >> 16);
  }
}

// --- scalars -------------------------------------------------------------------------------------

void run(const Fill& op, const KernelArgs& args) { scalar(args.outputs[0]) = op.value; }

void run(const Divide&, const KernelArgs& args) {
  const float b = scalar(args.inputs[1]);
  scalar(args.outputs[0]) = b == 0.0f ? 0.0f : scalar(args.inputs[0]) / b;
}

// --- update --------------------------------------------------------------------------------------

void run(const Accumulate&, const KernelArgs& args) {
  const double keep = scalar(args.inputs[2]);
  for (int64_t i = 0; i < args.outputs[0].size(); ++i) {
    float& sum = args.outputs[0].as<float>()[i];
    const float value = args.inputs[1].as<float>()[i];
    sum = keep == 0 ? value : rounded(keep * sum + value);
  }
}

void run(const SquaredNorm&, const KernelArgs& args) {
  double sum = 0;
  for (const TensorView& input : args.inputs) {
    for (int64_t i = 0; i < input.size(); ++i) {
      sum += double{input.as<float>()[i]} * input.as<float>()[i];
    }
  }
  scalar(args.outputs[0]) = rounded(sum);
}

void run(const ClipScale& op, const KernelArgs& args) {
  const double num_valid = scalar(args.inputs[1]);
  const double norm = num_valid == 0 ? 0 : std::sqrt(double{scalar(args.inputs[0])}) / num_valid;
  const double clip = op.max_norm > 0 && norm > op.max_norm ? op.max_norm / norm : 1.0;
  const bool is_sick = !std::isfinite(norm) || !std::isfinite(scalar(args.inputs[2]));
  scalar(args.outputs[0]) = is_sick ? NAN : num_valid == 0 ? 0.0f : rounded(clip / num_valid);
  scalar(args.outputs[1]) = rounded(norm);
}

void run(const AdamW& op, const KernelArgs& args) {
  const double scale = scalar(args.inputs[4]);
  const double rate = scalar(args.inputs[5]);
  const double step = scalar(args.inputs[6]);
  for (int64_t i = 0; i < args.outputs[0].size(); ++i) {
    const double g = args.inputs[1].as<float>()[i] * scale;
    const double m = op.beta1 * args.inputs[2].as<float>()[i] + (1.0 - op.beta1) * g;
    const double v = op.beta2 * args.inputs[3].as<float>()[i] + (1.0 - op.beta2) * g * g;
    const double m_hat = m / (1.0 - std::pow(double{op.beta1}, step));
    const double v_hat = v / (1.0 - std::pow(double{op.beta2}, step));
    const double param = args.inputs[0].as<float>()[i] * (1.0 - rate * op.weight_decay);
    const bool skips = !std::isfinite(scale);
    const float updated = rounded(param - rate * m_hat / (std::sqrt(v_hat) + op.eps));
    args.outputs[0].as<float>()[i] = skips ? args.inputs[0].as<float>()[i] : updated;
    args.outputs[1].as<float>()[i] = skips ? args.inputs[2].as<float>()[i] : rounded(m);
    args.outputs[2].as<float>()[i] = skips ? args.inputs[3].as<float>()[i] : rounded(v);
  }
}

}  // namespace caravan::reference
