package mount

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	grpcstatus "google.golang.org/grpc/status"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/display"
)

// lossy has the codes after which the kubelet keeps the target directory, so that the driver finds
// it and reports success without calling the provider again.
var lossy = map[codes.Code]bool{
	codes.Canceled: true, codes.DeadlineExceeded: true, codes.Unavailable: true,
	codes.ResourceExhausted: true, codes.Aborted: true,
}

const emptyVolume = "this error is not final for the kubelet: a pod would start with an empty volume. The provider " +
	"secretmanager never returns it: check what is between"

// callProvider sends the request. Unlike the driver, it does not wait for a missing provider.
func callProvider(ctx context.Context, socket string, request *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
	path, err := filepath.Abs(socket)
	if err != nil {
		return nil, err
	}
	probe, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, cli.WithHint(fmt.Errorf("socket %s does not exist", socket),
			"check that the provider runs and that --socket is its --endpoint; on a node the socket is in "+
				"/var/run/secrets-store-csi-providers")
	case err != nil:
		return nil, cli.WithHint(fmt.Errorf("connecting to socket %s: %w", socket, err),
			"check that the provider runs, and the permissions of the socket")
	}
	probe.Close()
	conn, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("localhost"))
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", socket, err)
	}
	defer conn.Close()
	response, err := v1alpha1.NewCSIDriverProviderClient(conn).Mount(ctx, request)
	if err == nil {
		return response, nil
	}
	s := grpcstatus.Convert(err)
	if s.Code() == codes.DeadlineExceeded {
		return nil, cli.WithHint(display.Errorf("the provider did not respond in time: %s", s.Message()),
			"see the provider's log; --timeout sets how long to wait", emptyVolume)
	}
	err = display.Errorf("the provider refused the mount: %s: %s", s.Code(), s.Message())
	if lossy[s.Code()] {
		return nil, cli.WithHint(err, emptyVolume)
	}
	return nil, err
}
