import java.io.IOException;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.serialization.AbstractDeserializationSchema;
import org.apache.flink.api.common.serialization.SerializationSchema;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.configuration.CheckpointingOptions;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.StateBackendOptions;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;

/** The job on Flink, in its own process: keyed state on the heap, checkpoints to disk every ten seconds. */
public final class FlinkPeer {
    public static void main(String[] arguments) throws Exception {
        Job job = Job.given();
        Configuration settings = new Configuration();
        settings.set(StateBackendOptions.STATE_BACKEND, "hashmap");
        settings.set(CheckpointingOptions.CHECKPOINT_STORAGE, "filesystem");
        settings.set(CheckpointingOptions.CHECKPOINTS_DIRECTORY, "file://" + job.state);
        StreamExecutionEnvironment flink = StreamExecutionEnvironment.createLocalEnvironment(1, settings);
        flink.enableCheckpointing(10_000);
        flink.getConfig().enableObjectReuse();
        KafkaSource<Job.Inspection> inspections = KafkaSource.<Job.Inspection>builder()
                .setBootstrapServers(job.bootstrap)
                .setTopics(job.input)
                .setGroupId(job.group)
                .setStartingOffsets(OffsetsInitializer.earliest())
                .setValueOnlyDeserializer(new Reader())
                .build();
        KafkaSink<byte[]> alerts = KafkaSink.<byte[]>builder()
                .setBootstrapServers(job.bootstrap)
                .setDeliveryGuarantee(DeliveryGuarantee.AT_LEAST_ONCE)
                .setRecordSerializer(KafkaRecordSerializationSchema.<byte[]>builder()
                        .setTopic(job.output)
                        .setValueSerializationSchema(new Writer())
                        .build())
                .build();
        flink.fromSource(inspections, WatermarkStrategy.noWatermarks(), "inspections")
                .keyBy(Job.Inspection::cell)
                .process(new Judge(job.limits()))
                .sinkTo(alerts);
        flink.execute("job");
    }

    private static final class Reader extends AbstractDeserializationSchema<Job.Inspection> {
        @Override
        public Job.Inspection deserialize(byte[] value) throws IOException {
            return Job.INSPECTION.readValue(value);
        }
    }

    private static final class Writer implements SerializationSchema<byte[]> {
        @Override
        public byte[] serialize(byte[] alert) {
            return alert;
        }
    }

    private static final class Judge extends KeyedProcessFunction<String, Job.Inspection, byte[]> {
        private final int[] limits;
        private transient ValueState<byte[]> cells;

        Judge(int[] limits) {
            this.limits = limits;
        }

        @Override
        public void open(OpenContext context) {
            cells = getRuntimeContext().getState(new ValueStateDescriptor<>("cell", byte[].class));
        }

        @Override
        public void processElement(Job.Inspection event, Context context, Collector<byte[]> out) throws IOException {
            Cell cell = Cell.fromBytes(cells.value());
            boolean tell = cell.count(event.day(), event.fails(), limits);
            cells.update(cell.toBytes());
            if (tell) {
                out.collect(Job.Alert.of(event, cell));
            }
        }
    }
}
