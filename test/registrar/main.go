// Command node-driver-registrar registers a CSI driver with the kubelet.
//
// The kubelet watches a directory for sockets. It asks each socket for the name and the socket of a driver (GetInfo),
// and then reports the result of the registration (NotifyRegistrationStatus). This program serves these two calls. It
// has the flags of the program of the same name from kubernetes-csi, which the Go module proxy does not have, so that
// the driver's released manifest works with both.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/klog/v2"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

func main() {
	klog.InitFlags(nil)
	var (
		driver  = flag.String("csi-address", "/run/csi/socket", "socket of the driver, as this program sees it")
		kubelet = flag.String("kubelet-registration-path", "", "socket of the driver, as the kubelet sees it")
		dir     = flag.String("plugin-registration-path", "/registration", "directory that the kubelet watches")
		timeout = flag.Duration("timeout", time.Minute, "how long to wait for the driver")
	)
	flag.Parse()

	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, *driver, *kubelet, *dir, *timeout); err != nil {
		klog.ErrorS(err, "node-driver-registrar")
		klog.FlushAndExit(klog.ExitFlushTimeout, 1)
	}
}

// run registers the driver and serves the kubelet until ctx ends.
func run(ctx context.Context, driver, kubelet, dir string, timeout time.Duration) error {
	if kubelet == "" {
		return errors.New("--kubelet-registration-path is missing")
	}
	name, err := driverName(ctx, driver, timeout)
	if err != nil {
		return fmt.Errorf("asking the driver at %s for its name: %w", driver, err)
	}

	socket := filepath.Join(dir, name+"-reg.sock")
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the socket of an earlier run: %w", err)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	registerapi.RegisterRegistrationServer(server, &registration{name: name, endpoint: kubelet})
	stop := context.AfterFunc(ctx, server.GracefulStop)
	defer stop()
	klog.InfoS("serving the kubelet", "driver", name, "socket", socket)
	return server.Serve(listener)
}

// driverName gets the name of the driver, and waits until the driver responds.
func driverName(ctx context.Context, socket string, timeout time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	info, err := csi.NewIdentityClient(conn).GetPluginInfo(ctx, &csi.GetPluginInfoRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return "", err
	}
	return info.GetName(), nil
}

// registration implements the registration service for the kubelet.
type registration struct {
	registerapi.UnimplementedRegistrationServer
	name, endpoint string
}

// GetInfo returns the name and the endpoint of the driver.
func (r *registration) GetInfo(context.Context, *registerapi.InfoRequest) (*registerapi.PluginInfo, error) {
	return &registerapi.PluginInfo{
		Type:              registerapi.CSIPlugin,
		Name:              r.name,
		Endpoint:          r.endpoint,
		SupportedVersions: []string{"1.0.0"},
	}, nil
}

// NotifyRegistrationStatus receives the result of the registration. If it failed, the program ends, so that the next
// start tries again.
func (r *registration) NotifyRegistrationStatus(_ context.Context,
	status *registerapi.RegistrationStatus) (*registerapi.RegistrationStatusResponse, error) {
	if !status.PluginRegistered {
		klog.ErrorS(errors.New(status.Error), "the kubelet refused the driver", "driver", r.name)
		klog.FlushAndExit(klog.ExitFlushTimeout, 1)
	}
	klog.InfoS("registered", "driver", r.name)
	return &registerapi.RegistrationStatusResponse{}, nil
}
