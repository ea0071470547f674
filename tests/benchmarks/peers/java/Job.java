import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.ObjectWriter;
import java.io.File;
import java.io.IOException;
import java.time.LocalDate;

/** What a peer in Java is to do, from the environment variable PEER; and its records. */
@JsonIgnoreProperties(ignoreUnknown = true)
public final class Job {
    public String bootstrap;
    public String input;
    public String output;
    public String group;
    public String state;
    public String limits;

    private static final ObjectMapper JSON = new ObjectMapper();
    public static final ObjectReader INSPECTION = JSON.readerFor(Inspection.class);
    public static final ObjectWriter ALERT = JSON.writerFor(Alert.class);

    public static Job given() throws IOException {
        return JSON.readValue(System.getenv("PEER"), Job.class);
    }

    /** The fewest failures among so many tests that put a cell under the target. */
    public int[] limits() throws IOException {
        return JSON.readValue(new File(limits), int[].class);
    }

    @JsonIgnoreProperties(ignoreUnknown = true)
    public static final class Inspection {
        public String product;
        public String region;
        public String reported_at;
        public String verdict;

        public String cell() {
            return product + "/" + region;
        }

        public String date() {
            return reported_at.substring(0, 10);
        }

        public int day() {
            return (int) LocalDate.parse(date()).toEpochDay();
        }

        public boolean fails() {
            return verdict.equals("fail");
        }
    }

    public record Alert(String product, String region, String day, int tested, int failed, boolean below) {
        public static byte[] of(Inspection event, Cell cell) throws IOException {
            return ALERT.writeValueAsBytes(new Alert(event.product, event.region, event.date(), cell.tested(), cell.failed(), cell.below()));
        }
    }
}
