#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Builds the softmax benchmarks with one compiler command each, runs them beside PyTorch (where python3 has it) on this machine,
# and prints one table. No CMake; Google Benchmark, xsimd and Eigen are installed or lie under PREFIX (include/, lib/).
#
#   [CXX=g++] [ARCH=native] [PREFIX=folder] [OUT=folder] [REPETITIONS=3] [BUDGET=330] bench/run_side_by_side.sh [brief]
#
# BUDGET: seconds after which no further step starts. `brief` measures one thread and few shapes, without PyTorch: for a second
# instruction set on the same machine (ARCH=haswell).
set -u
cd "$(dirname "$0")/.." || exit 1
cxx=${CXX:-g++}
arch=${ARCH:-native}
prefix=${PREFIX:-/usr}
out=$(mkdir -p "${OUT:-build/side_by_side}" && cd "${OUT:-build/side_by_side}" && pwd) || exit 1
repetitions=${REPETITIONS:-3}
budget=${BUDGET:-330}
mode=${1:-full}
all=$(nproc)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
SECONDS=0
export LD_LIBRARY_PATH="$prefix/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"

flags="-std=c++20 -O3 -DNDEBUG -march=$arch -fopenmp"
includes="-Iinclude -isystem $prefix/include"
for folder in "$prefix/include/eigen3" /usr/include/eigen3 /usr/local/include/eigen3; do
  [ -e "$folder/Eigen/Core" ] && includes="$includes -isystem $folder" && break
done
onednn="" onednn_library=""
if [ -e "$prefix/include/dnnl.hpp" ] && ls "$prefix"/lib/libdnnl.so /usr/lib/*/libdnnl.so >/dev/null 2>&1; then
  onednn="-DTOKENMIX_BENCH_WITH_ONEDNN" onednn_library="-ldnnl"
fi

build() { # program, further flags, further libraries
  # shellcheck disable=SC2086
  $cxx $flags $2 $includes "bench/$1.cpp" -o "$work/$1" -L"$prefix/lib" -Wl,--allow-shlib-undefined -lbenchmark $3 \
    >"$work/$1.log" 2>&1 || { echo "$1 does not build:"; head -20 "$work/$1.log"; }
}
build softmax_attention_bench "$onednn" "$onednn_library" &
[ "$mode" = brief ] || build softmax_decode_bench "" "" &
build limits_bench "" "" &
wait
echo "built with $($cxx --version | head -1), $flags $onednn: $SECONDS s"

measure() { # name of the result, processors to run on, seconds at most, program, arguments
  local name=$1 cpus=$2 limit=$3 program=$4
  shift 4
  [ -x "$work/$program" ] || return
  if [ $SECONDS -gt "$budget" ]; then
    echo "$name: left out, the time is up"
    return
  fi
  timeout "$limit" taskset -c "$cpus" "$work/$program" "$@" --benchmark_repetitions="$repetitions" \
    --benchmark_min_time=0.1 --benchmark_out="$out/$name.json" --benchmark_out_format=json \
    --benchmark_context=flags="$flags" --benchmark_context=compiler="$($cxx --version | head -1)" >"$work/$name.txt" 2>&1 ||
    echo "$name: ended with $?"
  echo "$name: $SECONDS s"
}
torch() { # name of the result, processors, threads, types, filter
  if [ $SECONDS -gt "$budget" ] || ! python3 -c 'import torch' 2>/dev/null; then
    echo "$1: left out"
    return
  fi
  timeout 120 taskset -c "$2" python3 bench/peers/pytorch_sdpa.py --threads "$3" --types "$4" --filter "$5" --seconds 0.1 \
    --repetitions "$repetitions" >"$out/$1.json" 2>"$work/$1.txt" || { echo "$1: ended with $?"; tail -3 "$work/$1.txt"; }
  echo "$1: $SECONDS s"
}

one=0
two=0,1
[ "$all" -gt 6 ] && one=2 two=2,5 # away from processor 0; two cores, whichever way their threads are numbered
everyone=0-$((all - 1))
some='T:(512|2048|197|49|32)/'
measure "limits_1_$arch" "$one" 60 limits_bench --short --threads=1
if [ "$mode" = brief ]; then
  measure "prefill_1_$arch" "$one" 150 softmax_attention_bench --threads=1 \
    --benchmark_filter="float/tokenmix/.*(T:(512|2048)/|T:8192/D:64)|float/(unfused_eigen|onednn)/.*T:(512|2048)/D:64"
  measure "prefill_all_$arch" "$everyone" 90 softmax_attention_bench --threads="$all" \
    --benchmark_filter="prefill(_causal)?/float/tokenmix/.*T:(2048|8192)/"
else
  measure "limits_all_$arch" "$everyone" 60 limits_bench --short --threads="$all"
  measure "prefill_1_$arch" "$one" 180 softmax_attention_bench --threads=1 \
    --benchmark_filter="float/tokenmix|float/.*$some|bfloat16/tokenmix/.*T:2048/"
  torch torch_1 "$one" 1 float "(prefill|prefill_causal|vit|swin|fields)/.*$some|T:8192/D:64|decode"
  measure "prefill_all_$arch" "$everyone" 120 softmax_attention_bench --threads="$all" \
    --benchmark_filter="float/(tokenmix|unfused_eigen)|onednn/.*$some|bfloat16/tokenmix/.*T:2048/"
  torch torch_all "$everyone" "$all" float,bfloat16 "(prefill|prefill_causal|vit|swin|fields)/float|decode|bfloat16/.*T:2048/"
  measure "decode_1_$arch" "$one" 90 softmax_decode_bench --threads=1
  measure "decode_all_$arch" "$everyone" 90 softmax_decode_bench --threads="$all"
  measure "prefill_2_$arch" "$two" 40 softmax_attention_bench --threads=2 \
    --benchmark_filter="prefill(_causal)?/float/tokenmix/.*T:2048/"
fi

# One table; where python3 is missing, the programs' own.
valid=()
for file in "$out"/{prefill,decode}_*"_$arch.json" "$out"/torch_*.json; do
  [ -s "$file" ] && valid+=("$file")
done
cat "$work"/limits_*.txt
if [ ${#valid[@]} -gt 0 ] && command -v python3 >/dev/null; then
  python3 bench/report/table.py --text "${valid[@]}" | tee "$out/table_$arch.txt"
else
  cat "$work"/*.txt
fi
echo "done: $SECONDS s; results are in $out"
