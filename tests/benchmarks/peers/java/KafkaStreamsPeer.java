import java.io.IOException;
import java.io.UncheckedIOException;
import java.time.Duration;
import java.util.Properties;
import java.util.Set;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.ProcessorSupplier;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.StoreBuilder;
import org.apache.kafka.streams.state.Stores;

/** The job on Kafka Streams: a processor with a cached store in RocksDB and its changelog topic; one thread. */
public final class KafkaStreamsPeer {
    private static final String STORE = "cells";

    public static void main(String[] arguments) throws IOException {
        Job job = Job.given();
        int[] limits = job.limits();
        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(job.input, Consumed.with(Serdes.ByteArray(), Serdes.ByteArray()))
                .process(new Judges(limits))
                .to(job.output, Produced.with(Serdes.String(), Serdes.ByteArray()));
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, job.group);
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, job.bootstrap);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, job.state);
        settings.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
        KafkaStreams streams = new KafkaStreams(builder.build(), settings);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(10))));
        streams.start();
    }

    private record Judges(int[] limits) implements ProcessorSupplier<byte[], byte[], String, byte[]> {
        @Override
        public Processor<byte[], byte[], String, byte[]> get() {
            return new Judge(limits);
        }

        @Override
        public Set<StoreBuilder<?>> stores() {
            return Set.of(Stores.keyValueStoreBuilder(
                            Stores.persistentKeyValueStore(STORE), Serdes.String(), Serdes.ByteArray())
                    .withCachingEnabled());
        }
    }

    private static final class Judge implements Processor<byte[], byte[], String, byte[]> {
        private final int[] limits;
        private ProcessorContext<String, byte[]> context;
        private KeyValueStore<String, byte[]> cells;

        Judge(int[] limits) {
            this.limits = limits;
        }

        @Override
        public void init(ProcessorContext<String, byte[]> context) {
            this.context = context;
            cells = context.getStateStore(STORE);
        }

        @Override
        public void process(Record<byte[], byte[]> record) {
            try {
                Job.Inspection event = Job.INSPECTION.readValue(record.value());
                String key = event.cell();
                Cell cell = Cell.fromBytes(cells.get(key));
                boolean tell = cell.count(event.day(), event.fails(), limits);
                cells.put(key, cell.toBytes());
                if (tell) {
                    context.forward(new Record<>(key, Job.Alert.of(event, cell), record.timestamp()));
                }
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        }
    }
}
