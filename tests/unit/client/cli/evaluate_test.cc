#include "client/cli/evaluate.h"

#include <atomic>
#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/format/rotation.h"
#include "kernels/format/small_floats.h"
#include "tests/unit/client/cli/tiny_capture.h"

namespace turbokv::cli {
namespace {

using ::testing::HasSubstr;

std::vector<LayerQuality> Evaluate(const std::string& path, const std::string& policy) {
  const Capture capture = *OpenCapture(path);
  const std::vector<LayerCodecs> codecs = *Policy::Parse(policy)->Expand(capture.layers);
  std::atomic<int> done{0};
  ThreadPool pool(2);
  absl::StatusOr<std::vector<LayerQuality>> layers =
      EvaluateCapture(capture, codecs, &pool, [&] { ++done; });
  EXPECT_TRUE(layers.ok()) << layers.status();
  EXPECT_EQ(done, capture.layers);
  return *layers;
}

// An independent model of two codecs, from their definition alone: vectors of 128 channels.
using Vector = std::vector<double>;

// K of q8_0 after the page's rounded mean is taken out.
void RoundQ8(Vector* vector) {
  for (size_t block = 0; block < vector->size(); block += 32) {
    double largest = 0;
    for (size_t i = block; i < block + 32; ++i) largest = std::max(largest, std::abs((*vector)[i]));
    const float step = static_cast<float>(largest) / 127.0f;
    for (size_t i = block; i < block + 32; ++i) {
      const double code = step == 0 ? 0 : std::round((*vector)[i] / step);
      (*vector)[i] = code * Fp16ToFloat(FloatToFp16(step));
    }
  }
}

// y_i = sum_j (-1)^popcount(i & j) x_j / sqrt(128), with signs before and after.
Vector Rotate(const Vector& x, const std::array<uint8_t, 16>& before,
              const std::array<uint8_t, 16>& after) {
  Vector y(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    for (size_t j = 0; j < x.size(); ++j) {
      const double sign = __builtin_popcountll(i & j) % 2 == 0 ? 1 : -1;
      y[i] += sign * RotationSign(before, static_cast<int>(j)) * x[j];
    }
    y[i] *= RotationSign(after, static_cast<int>(i)) / std::sqrt(128.0);
  }
  return y;
}

double Norm(const Vector& x) {
  double sum = 0;
  for (double value : x) sum += value * value;
  return std::sqrt(sum);
}

void RoundTurbo3(Vector* vector) {
  constexpr double kCentroids[] = {0.021460, 0.065717, 0.117832, 0.190685};
  const double norm = Norm(*vector);
  Vector y = Rotate(*vector, kRotationSigns1, kRotationSigns2);
  for (double& value : y) {
    const double magnitude = std::abs(value / norm);
    double nearest = kCentroids[0];
    for (double centroid : kCentroids) {
      if (std::abs(magnitude - centroid) < std::abs(magnitude - nearest)) nearest = centroid;
    }
    value = std::copysign(nearest, value);
  }
  const double scale = Fp16ToFloat(DoubleToFp16(norm / Norm(y)));
  for (double& value : y) value *= scale;
  *vector = Rotate(y, kRotationSigns2, kRotationSigns1);
}

// [head][token][channel] of a layer, as doubles.
struct Values {
  int heads, tokens, dim;
  std::vector<double> data;
  double* at(int head, int token) {
    return &data[(static_cast<size_t>(head) * tokens + token) * dim];
  }
};

Values ValuesOf(const Tensor& tensor) {
  const std::vector<float> floats = *ToFloats(tensor);
  return {static_cast<int>(tensor.shape[0]),
          static_cast<int>(tensor.shape[1]),
          static_cast<int>(tensor.shape[2]),
          {floats.begin(), floats.end()}};
}

void RoundEach(Values* values, void (*round)(Vector*)) {
  for (int head = 0; head < values->heads; ++head) {
    for (int token = 0; token < values->tokens; ++token) {
      double* at = values->at(head, token);
      Vector vector(at, at + values->dim);
      round(&vector);
      std::copy(vector.begin(), vector.end(), at);
    }
  }
}

// Adds `sign` times the mean of each page's tokens, rounded to fp16.
Values PageMeans(Values values) {
  for (int head = 0; head < values.heads; ++head) {
    for (int first = 0; first < values.tokens; first += kPageTokens) {
      const int end = std::min(first + kPageTokens, values.tokens);
      for (int c = 0; c < values.dim; ++c) {
        double sum = 0;
        for (int t = first; t < end; ++t) sum += values.at(head, t)[c];
        const double mean = Fp16ToFloat(DoubleToFp16(sum / (end - first)));
        for (int t = first; t < end; ++t) values.at(head, t)[c] = mean;
      }
    }
  }
  return values;
}

double RelativeError(const Values& exact, const Values& other) {
  double error = 0, energy = 0;
  for (size_t i = 0; i < exact.data.size(); ++i) {
    error += std::pow(other.data[i] - exact.data[i], 2);
    energy += std::pow(exact.data[i], 2);
  }
  return error / energy;
}

// Softmax weights of query row `row` of `head`; invisible tokens have weight 0.
Vector Weights(Values& q, Values& k, int head, int row) {
  const int kv_head = head / (q.heads / k.heads);
  const int position = k.tokens - q.tokens + row;
  Vector weights(k.tokens, 0.0);
  double sum = 0;
  for (int t = 0; t <= position; ++t) {
    double dot = 0;
    for (int c = 0; c < k.dim; ++c) dot += q.at(head, row)[c] * k.at(kv_head, t)[c];
    weights[t] = std::exp(dot / std::sqrt(static_cast<double>(k.dim)));
    sum += weights[t];
  }
  for (double& weight : weights) weight /= sum;
  return weights;
}

AttentionFidelity ExpectedFidelity(Values q, Values k, Values v, Values k2, Values v2) {
  double error = 0, energy = 0, kld = 0;
  for (int head = 0; head < q.heads; ++head) {
    for (int row = 0; row < q.tokens; ++row) {
      const Vector p = Weights(q, k, head, row);
      const Vector r = Weights(q, k2, head, row);
      const int kv_head = head / (q.heads / k.heads);
      for (int t = 0; t < k.tokens; ++t) {
        if (p[t] > 0) kld += p[t] * std::log(p[t] / r[t]);
      }
      for (int c = 0; c < k.dim; ++c) {
        double out = 0, out2 = 0;
        for (int t = 0; t < k.tokens; ++t) {
          out += p[t] * v.at(kv_head, t)[c];
          out2 += r[t] * v2.at(kv_head, t)[c];
        }
        error += std::pow(out2 - out, 2);
        energy += out * out;
      }
    }
  }
  return {std::sqrt(error / energy), kld / (q.heads * q.tokens)};
}

void ExpectRatio(double actual, double expected, double tolerance) {
  EXPECT_NEAR(actual / expected, 1.0, tolerance) << actual << " against " << expected;
}

TEST(EvaluateTest, AgreesWithAnIndependentComputation) {
  const std::vector<LayerQuality> layers = Evaluate(TinyCapturePath(), "k=q8_0,v=turbo3");
  const Capture capture = *OpenCapture(TinyCapturePath());
  for (int n : {0, 3}) {
    const Values k = ValuesOf(capture.layer[n].k);
    const Values v = ValuesOf(capture.layer[n].v);
    const Values mean = PageMeans(k);
    Values k2 = k;
    for (size_t i = 0; i < k2.data.size(); ++i) k2.data[i] -= mean.data[i];
    RoundEach(&k2, RoundQ8);
    for (size_t i = 0; i < k2.data.size(); ++i) k2.data[i] += mean.data[i];
    Values v2 = v;
    RoundEach(&v2, RoundTurbo3);

    // Values on the edge between two codes may fall either way.
    ExpectRatio(layers[n].k_relative_mse, RelativeError(k, k2), 1e-3);
    ExpectRatio(layers[n].v_relative_mse, RelativeError(v, v2), 1e-4);
    ASSERT_TRUE(layers[n].attention.has_value());
    const AttentionFidelity expected =
        ExpectedFidelity(ValuesOf(*capture.layer[n].q), k, v, k2, v2);
    ExpectRatio(layers[n].attention->output_error, expected.output_error, 1e-3);
    ExpectRatio(layers[n].attention->attention_kld, expected.attention_kld, 5e-3);
  }
}

TEST(EvaluateTest, UnquantizedLayersHaveNoError) {
  const std::vector<LayerQuality> layers = Evaluate(TinyCapturePath(), "bf16");
  for (const LayerQuality& layer : layers) {
    EXPECT_EQ(layer.k_relative_mse, 0);
    EXPECT_EQ(layer.v_relative_mse, 0);
    EXPECT_EQ(layer.attention->output_error, 0);
    EXPECT_EQ(layer.attention->attention_kld, 0);
    EXPECT_NEAR(layer.bits_per_value, 16, 0.05);
  }
}

TEST(EvaluateTest, LayersFollowThePolicyAndMeansAreOverLayers) {
  const std::vector<LayerQuality> layers =
      Evaluate(TinyCapturePath(), "k=int5,v=turbo2;1:k=bf16,v=bf16");
  EXPECT_EQ(layers[0].codecs.v, Codec::kTurbo2);
  EXPECT_EQ(layers[1].v_relative_mse, 0);
  const MeanQuality mean = MeanOf(layers);
  double v = 0, kld = 0, bits = 0;
  for (const LayerQuality& layer : layers) {
    v += layer.v_relative_mse / 4;
    kld += layer.attention->attention_kld / 4;
    bits += layer.bits_per_value / 4;
  }
  EXPECT_DOUBLE_EQ(mean.v_relative_mse, v);
  EXPECT_DOUBLE_EQ(mean.attention->attention_kld, kld);
  EXPECT_DOUBLE_EQ(mean.bits_per_value, bits);
}

// A copy of the capture at `path` with another tensor `name` of the same shape, as F32.
std::string WithTensor(const TempDir& dir, const std::string& path, const std::string& name,
                       const std::vector<float>& values) {
  const SafetensorsFile file = *SafetensorsFile::Open(path);
  std::map<std::string, Tensor> tensors = file.tensors();
  tensors[name] = TensorOf(TensorType::kF32, file.Get(name)->shape, values);
  const std::string copy = dir.Path("changed.safetensors");
  EXPECT_TRUE(WriteSafetensors(copy, tensors).ok());
  return copy;
}

TEST(EvaluateTest, TheUnfilledPageCounts) {
  TempDir dir;
  const std::string path = WriteShortCapture(dir, 1, 130);
  const Capture capture = *OpenCapture(path);
  // Only the two tokens of the second page have a V at all.
  std::vector<float> v = *ToFloats(capture.layer[0].v);
  for (int head = 0; head < 2; ++head) {
    std::fill_n(v.begin() + head * 130 * 128, 128 * 128, 0.0f);
  }
  const std::vector<LayerQuality> layers =
      Evaluate(WithTensor(dir, path, "layers.0.v", v), "k=bf16,v=turbo2");
  EXPECT_NEAR(layers[0].v_relative_mse, 0.1175, 0.03);
  // Without queries there is nothing to say about attention.
  EXPECT_FALSE(layers[0].attention.has_value());
  EXPECT_FALSE(MeanOf(layers).attention.has_value());
}

TEST(EvaluateTest, NamesTheLayerWhoseValuesAreNotFinite) {
  TempDir dir;
  const std::string path = WriteShortCapture(dir, 2, 150);
  std::vector<float> k = *ToFloats(OpenCapture(path)->layer[1].k);
  k[140 * 128 + 3] = NAN;
  const Capture bad = *OpenCapture(WithTensor(dir, path, "layers.1.k", k));
  const absl::Status status =
      EvaluateCapture(bad, std::vector<LayerCodecs>(2), nullptr, [] {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("layer 1, page of tokens 128..149"));
}

}  // namespace
}  // namespace turbokv::cli
