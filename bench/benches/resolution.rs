//! State resolution against `ruma-state-res`, by kind and size of the fork.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use warren_bench::resolution::{Kind, Ruma, Trees};

/// Conflicted events.
const SIZES: [usize; 4] = [10, 100, 1_000, 10_000];

fn resolution(criterion: &mut Criterion) {
    for (name, kind) in [("joins", Kind::Joins), ("mixed", Kind::Mixed)] {
        let mut group = criterion.benchmark_group(name);
        group.sample_size(10);
        for size in SIZES {
            group.throughput(Throughput::Elements(size as u64));
            let workload = || kind.workload(size).expect("the room version is known");
            let ours = Trees::new(workload()).expect("the workload is whole");
            group.bench_function(BenchmarkId::new("warren", size), |bencher| {
                bencher.iter(|| ours.resolve());
            });
            let theirs = Ruma::new(workload()).expect("ruma-state-res takes the room");
            group.bench_function(BenchmarkId::new("ruma-state-res", size), |bencher| {
                bencher.iter_batched_ref(
                    || theirs.input(),
                    |input| theirs.resolve(input),
                    BatchSize::LargeInput,
                );
            });
        }
        group.finish();
    }
}

criterion_group!(benches, resolution);
criterion_main!(benches);
