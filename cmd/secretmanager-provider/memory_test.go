package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/test/async"
)

// runningProvider is the program as its DaemonSet runs it: with the memory limit,
// GOMEMLIMIT and the flags' defaults.
type runningProvider struct {
	conn   *grpc.ClientConn
	client v1alpha1.CSIDriverProviderClient
	memory *memoryGroup
	log    *logFile
	done   chan struct{} // closed when the process has ended
	err    error         // how it ended; read it only after done is closed
}

func startProvider(t *testing.T, w *hostileEnv) *runningProvider {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "provider")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("building the provider: %v\n%s", err, out)
	}
	p := &runningProvider{memory: newMemoryGroup(t), log: &logFile{path: filepath.Join(dir, "log")},
		done: make(chan struct{})}
	endpoint := filepath.Join(dir, "p.sock")
	log, err := os.Create(p.log.path)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close() // the child has its own copy
	cmd := p.memory.command(program, "--endpoint="+endpoint, "--version-key-file="+filepath.Join(dir, "key"),
		"--vault-addr="+w.Vault.Address,
		"--vault-auth-mount=hostile", "--health-addr=", "--metrics-addr=", "--kubeconfig="+w.kubeconfig)
	cmd.Env = append(os.Environ(), "GOMEMLIMIT="+softMemoryLimit, "GOMAXPROCS=", "GODEBUG=")
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.memory.pid = cmd.Process.Pid
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // fails if the process has already ended
		<-p.done
	})
	async.Wait(t, "the socket", func() bool {
		if p.exited() {
			t.Fatalf("the provider did not start: %v\n%s", p.err, p.log.tail())
		}
		_, err := os.Stat(endpoint)
		return err == nil
	})
	conn, err := grpc.NewClient("unix:"+endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("localhost"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	p.conn, p.client = conn, v1alpha1.NewCSIDriverProviderClient(conn)
	return p
}

func (p *runningProvider) exited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *runningProvider) resetPeak() { p.memory.reset() }

// peak returns the maximum of memory in use since the last reset, and fails the test
// if it exceeds the limit, which is possible only if nothing enforces the limit.
func (p *runningProvider) peak(t *testing.T) int64 {
	t.Helper()
	peak := p.memory.read()
	if peak > memoryLimit {
		t.Errorf("the process used %d MiB, and its limit is %d MiB", peak>>20, memoryLimit>>20)
	}
	return peak
}

// memoryGroup is a memory cgroup with the DaemonSet's limit or, if none can be created,
// a watch on the memory of the process.
type memoryGroup struct {
	how   string // for the log
	dir   string // of the cgroup; empty for a watch
	peaks string // file that has the peak; writing to it resets the peak
	pid   int
}

func newMemoryGroup(t *testing.T) *memoryGroup {
	t.Helper()
	g, why := makeMemoryGroup(t)
	if g == nil {
		t.Logf("no memory cgroup can be created, so resident memory is watched instead: %s", why)
		return &memoryGroup{how: "resident set (no cgroup)"}
	}
	t.Cleanup(func() {
		// The process has ended, because cleanups that were registered later have run.
		if err := os.Remove(g.dir); err != nil {
			t.Errorf("removing the cgroup: %v", err)
		}
	})
	return g
}

// makeMemoryGroup creates a cgroup below that of this process, of version 1 or 2.
func makeMemoryGroup(t *testing.T) (g *memoryGroup, why string) {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err.Error()
	}
	name := fmt.Sprintf("provider-test-%d-%d", os.Getpid(), time.Now().UnixNano())
	for line := range strings.Lines(string(own)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		limits := map[string]string{"memory.limit_in_bytes": fmt.Sprint(memoryLimit)}
		g := &memoryGroup{how: "cgroup v1", dir: filepath.Join("/sys/fs/cgroup/memory", parts[2], name),
			peaks: "memory.max_usage_in_bytes"}
		switch {
		case parts[1] == "memory":
		case parts[0] == "0" && parts[1] == "":
			g = &memoryGroup{how: "cgroup v2", dir: filepath.Join("/sys/fs/cgroup", parts[2], name), peaks: "memory.peak"}
			limits = map[string]string{"memory.max": fmt.Sprint(memoryLimit), "memory.swap.max": "0"}
		default:
			continue
		}
		if err := os.Mkdir(g.dir, 0o755); err != nil {
			why += err.Error() + "; "
			continue
		}
		ok := true
		for file, value := range limits {
			if err := os.WriteFile(filepath.Join(g.dir, file), []byte(value), 0); err != nil && file != "memory.swap.max" {
				why += err.Error() + "; "
				ok = false
			}
		}
		if ok {
			return g, ""
		}
		if err := os.Remove(g.dir); err != nil {
			t.Errorf("removing a cgroup: %v", err)
		}
	}
	return nil, why
}

// command returns a command that runs the program in the cgroup from the start.
func (g *memoryGroup) command(program string, args ...string) *exec.Cmd {
	if g.dir == "" {
		return exec.Command(program, args...)
	}
	join := fmt.Sprintf(`echo $$ > '%s/cgroup.procs' && exec "$@"`, g.dir)
	return exec.Command("/bin/sh", append([]string{"-c", join, "sh", program}, args...)...)
}

func (g *memoryGroup) reset() {
	if g.dir == "" {
		_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", g.pid), []byte("5"), 0)
		return
	}
	// Before Linux 6.12, version 2 cannot reset the peak, which then counts from the start.
	_ = os.WriteFile(filepath.Join(g.dir, g.peaks), []byte("0"), 0)
}

func (g *memoryGroup) read() int64 {
	if g.dir != "" {
		text, err := os.ReadFile(filepath.Join(g.dir, g.peaks))
		if err != nil {
			return 0
		}
		n, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		return n
	}
	if runtime.GOOS != "linux" {
		return 0
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.pid))
	if err != nil {
		return 0
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "VmHWM:"); ok {
			n, _ := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
			return n << 10
		}
	}
	return 0
}

// logFile is the log of the program.
type logFile struct{ path string }

func (l *logFile) tail() string {
	text, err := os.ReadFile(l.path)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-2000):])
}
