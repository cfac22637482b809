#include "kernels/format/rotation.h"

#include <cmath>

namespace turbokv {
namespace {

constexpr double kCentroids2[] = {-.133462, -.039994, .039994, .133462};
constexpr double kCentroids3[] = {-.190685, -.117832, -.065717, -.021460,
                                  .021460,  .065717,  .117832,  .190685};
constexpr double kCentroids4[] = {-.241556, -.182907, -.143047, -.111065, -.083317, -.058069,
                                  -.034311, -.011353, .011353,  .034311,  .058069,  .083317,
                                  .111065,  .143047,  .182907,  .241556};
constexpr double kThresholds2[] = {-.086728, 0, .086728};
constexpr double kThresholds3[] = {-.154259, -.091775, -.043589, 0, .043589, .091775, .154259};
constexpr double kThresholds4[] = {-.212232, -.162977, -.127056, -.097191, -.070693,
                                   -.046190, -.022832, 0,        .022832,  .046190,
                                   .070693,  .097191,  .127056,  .162977,  .212232};

}  // namespace

absl::Span<const double> TurboCentroids(Codec codec) {
  if (codec == Codec::kTurbo2) return kCentroids2;
  if (codec == Codec::kTurbo3) return kCentroids3;
  return kCentroids4;
}

absl::Span<const double> TurboThresholds(Codec codec) {
  if (codec == Codec::kTurbo2) return kThresholds2;
  if (codec == Codec::kTurbo3) return kThresholds3;
  return kThresholds4;
}

double CentroidScale(int group_channels) { return std::sqrt(128.0 / group_channels); }

}  // namespace turbokv
