public import ArgumentParser
public import MingleSupport
internal import VMMProtocol
internal import ImageFormats
internal import GuestMemory

extension LogLevel: ExpressibleByArgument {}
extension BootProtocol: ExpressibleByArgument {}
extension DirtyLogMode: ExpressibleByArgument {}
extension DensityPlan.Mode: ExpressibleByArgument {}
extension SharingChoice.Mode: ExpressibleByArgument {}
extension SharingChoice.Window: ExpressibleByArgument {}
